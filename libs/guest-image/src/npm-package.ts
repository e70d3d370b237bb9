import { mkdir, readdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { WrennError } from '@wrenn/protocol/errors';
import { CommandFailedError, runCommand } from './command.ts';
import { place, temporaryFolder } from './durable-files.ts';

/** The npm of the guests: of the line that Node.js 24 is published with. */
export const NPM_VERSION = '11.21.2';

/** npm's tarball in the cache, fetched with the machine's own npm, which checks it against the registry. */
export async function npmTarball(wrennDir: WrennDir, signal: AbortSignal): Promise<string> {
  const name = `npm-${NPM_VERSION}.tgz`;
  const path = join(wrennDir.cache, name);
  if ((await readdir(wrennDir.cache)).includes(name)) return path;
  await using work = await temporaryFolder(wrennDir.cache);
  try {
    const args = ['pack', '--silent', `--pack-destination=${work.path}`, `npm@${NPM_VERSION}`];
    await runCommand('npm', args, { signal, timeoutMs: 120_000, cwd: work.path });
  } catch (error) {
    if (!(error instanceof CommandFailedError)) throw error;
    throw new WrennError('package_download_failed', { problem: error.message }, { cause: error });
  }
  await place(join(work.path, name), path);
  return path;
}

/** Makes `node`, `npm` and `npx` commands of every user; `node` is the agent's own program. */
export async function installNodeCommands(rootDir: string, tarball: string, signal: AbortSignal): Promise<void> {
  const modules = join(rootDir, 'usr/local/lib/node_modules');
  const bin = join(rootDir, 'usr/local/bin');
  await mkdir(join(modules, 'npm'), { recursive: true });
  const args = ['--extract', '--gzip', '--no-same-owner', '--strip-components=1', `--file=${tarball}`];
  await runCommand('tar', [...args, `--directory=${join(modules, 'npm')}`], { signal, timeoutMs: 60_000 });
  await symlink('/opt/wrenn/node/bin/node', join(bin, 'node'));
  for (const command of ['npm', 'npx']) {
    await symlink(`../lib/node_modules/npm/bin/${command}-cli.js`, join(bin, command));
  }
}
