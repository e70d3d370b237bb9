import { readForeignFile } from './foreign-root.ts';

/**
 * The packages that a root file system's own package manager (dpkg or apk) has installed, name → version. Empty when
 * it has neither.
 */
export async function installedPackages(rootDir: string): Promise<Record<string, string>> {
  const dpkg = await readForeignFile(rootDir, 'var/lib/dpkg/status');
  if (dpkg !== undefined) return parseDpkg(dpkg);
  const apk = await readForeignFile(rootDir, 'lib/apk/db/installed');
  return apk === undefined ? {} : parseApk(apk);
}

export function parseDpkg(status: string): Record<string, string> {
  return collect(status, (record) =>
    /^Status: .* installed$/m.test(record) ? [field(record, 'Package: '), field(record, 'Version: ')] : [],
  );
}

export function parseApk(database: string): Record<string, string> {
  return collect(database, (record) => [field(record, 'P:'), field(record, 'V:')]);
}

function collect(text: string, read: (record: string) => (string | undefined)[]): Record<string, string> {
  const pairs = text.split('\n\n').flatMap((record): [string, string][] => {
    const [name, version] = read(record);
    return name === undefined || version === undefined ? [] : [[name, version]];
  });
  return Object.fromEntries(pairs.sort(([a], [b]) => (a < b ? -1 : 1)));
}

function field(record: string, key: string): string | undefined {
  const line = record.split('\n').find((candidate) => candidate.startsWith(key));
  return line?.slice(key.length).trim();
}
