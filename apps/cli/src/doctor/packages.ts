import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { tryCommand } from './command.ts';
import { type Finding, fail, ok, warn } from './finding.ts';

const LIST = join(import.meta.dirname, '..', '..', '..', '..', 'deploy', 'packages-debian.txt');

/** A Debian package that Wrenn needs. */
export interface NeededPackage {
  readonly name: string;
  readonly purpose: string;
}

/**
 * Reads `name [architectures] # purpose` lines: those for one of Debian's architectures ("amd64"). scripts/setup.sh
 * reads the same file.
 */
export function parsePackageList(text: string, architecture: string): NeededPackage[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*([a-z0-9][a-z0-9.+-]*)(?:\s+\[([^\]]*)\])?\s*(?:#\s*(.*?)\s*)?$/.exec(line);
    if (!match) return [];
    const [, name = '', architectures, purpose = ''] = match;
    const isFor = architectures === undefined || architectures.split(/[\s,]+/).includes(architecture);
    return isFor ? [{ name, purpose }] : [];
  });
}

export async function checkPackages(signal: AbortSignal): Promise<Finding[]> {
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const needed = parsePackageList(await readFile(LIST, 'utf8'), architecture);
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own placeholders
  const query = ['-W', '-f', '${db:Status-Status} ${Package} ${Version}\n', ...needed.map(({ name }) => name)];
  // It fails when it does not know one of the packages, and tells of the others all the same.
  const script = 'dpkg-query "$@" 2>/dev/null || [ $? = 1 ]';
  const answer = await tryCommand('/bin/sh', ['-c', script, 'sh', ...query], signal);
  if (!answer.ok) {
    return [
      warn(
        'packages',
        'this is no Debian system, so packages cannot be looked up',
        `Install the equals of: ${needed.map(({ name }) => name).join(' ')}`,
      ),
    ];
  }
  return describePackages(needed, answer.stdout);
}

/** @param installed lines of dpkg-query: status, name, version. */
export function describePackages(needed: readonly NeededPackage[], installed: string): Finding[] {
  const versions = new Map(
    installed.split('\n').flatMap((line) => {
      const [status, name, version] = line.split(' ');
      return status === 'installed' && name && version ? [[name, version] as const] : [];
    }),
  );
  const missing = needed.filter(({ name }) => !versions.has(name));
  const all = `sudo apt-get install --no-install-recommends ${missing.map(({ name }) => name).join(' ')}`;
  const present = needed.length - missing.length;
  return [
    ...(present > 0 ? [ok('packages', `${present} of ${needed.length} Debian packages are installed`)] : []),
    ...missing.map(({ name, purpose }) =>
      fail(name, `is not installed${purpose && ` (${purpose})`}`, `make setup, or: ${all}`),
    ),
  ];
}
