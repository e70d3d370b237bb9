import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readForeignFile } from './foreign-root.ts';
import { installedPackages } from './installed-packages.ts';
import { scratchFolder } from './testing/scratch.ts';

describe('installedPackages', () => {
  it("reads dpkg's list without what was removed", async () => {
    await using scratch = await scratchFolder();
    await mkdir(join(scratch.path, 'var/lib/dpkg'), { recursive: true });
    await writeFile(
      join(scratch.path, 'var/lib/dpkg/status'),
      'Package: wget\nStatus: install ok installed\nVersion: 1.21-1\nDescription: gets\n Version: no\n\n' +
        'Package: bash\nStatus: install ok installed\nVersion: 5.2\n\n' +
        'Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n',
    );
    expect(Object.entries(await installedPackages(scratch.path))).toEqual([
      ['bash', '5.2'],
      ['wget', '1.21-1'],
    ]);
  });

  it("reads apk's list, and none where there is no package manager", async () => {
    await using scratch = await scratchFolder();
    expect(await installedPackages(scratch.path)).toEqual({});
    await mkdir(join(scratch.path, 'lib/apk/db'), { recursive: true });
    await writeFile(join(scratch.path, 'lib/apk/db/installed'), 'C:Q1x\nP:musl\nV:1.2.4-r2\n\nP:busybox\nV:1.36\n\n');
    expect(await installedPackages(scratch.path)).toEqual({ busybox: '1.36', musl: '1.2.4-r2' });
  });
});

describe('readForeignFile', () => {
  it("does not follow links to the host's files", async () => {
    await using scratch = await scratchFolder();
    const root = join(scratch.path, 'root');
    await mkdir(join(root, 'etc'), { recursive: true });
    await writeFile(join(root, 'etc/real'), 'inside');
    await symlink('real', join(root, 'etc/link'));
    await symlink('/etc/passwd', join(root, 'etc/passwd'));
    expect(await readForeignFile(root, 'etc/link')).toBe('inside');
    expect(await readForeignFile(root, 'etc/passwd')).toBeUndefined();
    expect(await readForeignFile(root, 'etc')).toBeUndefined();
  });
});
