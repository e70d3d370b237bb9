import { randomBytes } from 'node:crypto';
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { runCommand } from './command.ts';
import { allocatedBytes, MIB, makeExt4 } from './ext4.ts';
import { replaceFolder } from './ext4-editor.ts';
import { scratchFolder } from './testing/scratch.ts';

const signal = new AbortController().signal;
const SEED = '0123456789abcdef'.repeat(4);

const inspect = async (image: string, command: string) =>
  (await runCommand('debugfs', ['-R', command, image], { signal, timeoutMs: 10_000 })).toString();

describe('makeExt4', () => {
  it('holds the files of a folder with their modes and links', async () => {
    await using scratch = await scratchFolder();
    const rootDir = join(scratch.path, 'root');
    const imagePath = join(scratch.path, 'rootfs.ext4');
    await mkdir(join(rootDir, 'etc'), { recursive: true });
    await writeFile(join(rootDir, 'etc/hostname'), 'capsule\n');
    await chmod(join(rootDir, 'etc/hostname'), 0o640);
    await symlink('etc/hostname', join(rootDir, 'name'));
    await makeExt4({ rootDir, imagePath, sizeMb: 256, seed: SEED, signal });
    expect(await inspect(imagePath, 'cat /etc/hostname')).toBe('capsule\n');
    expect(await inspect(imagePath, 'stat /etc/hostname')).toMatch(/Mode: {2}0640/);
    expect(await inspect(imagePath, 'stat /name')).toContain('Fast link dest: "etc/hostname"');
    expect(await inspect(imagePath, 'show_super_stats -h')).toMatch(/UUID: +01234567-89ab-8def-a123-456789abcdef/);
    expect(await allocatedBytes(imagePath)).toBeLessThan(8 * MIB);
  });

  it('says so when the files do not fit', async () => {
    await using scratch = await scratchFolder();
    const rootDir = join(scratch.path, 'root');
    await mkdir(rootDir);
    await writeFile(join(rootDir, 'big'), randomBytes(280 * MIB));
    const build = makeExt4({ rootDir, imagePath: join(scratch.path, 'fs'), sizeMb: 256, seed: SEED, signal });
    await expect(build).rejects.toMatchObject({
      code: 'image_build_failed',
      message: expect.stringContaining('do not fit'),
    });
  });
});

describe('replaceFolder', () => {
  it('replaces a folder of an image and touches nothing else', async () => {
    await using scratch = await scratchFolder();
    const rootDir = join(scratch.path, 'root');
    const imagePath = join(scratch.path, 'rootfs.ext4');
    await mkdir(join(rootDir, 'opt/wrenn/old/deep'), { recursive: true });
    await writeFile(join(rootDir, 'opt/wrenn/old/deep/file'), 'old');
    await writeFile(join(rootDir, 'opt/other'), 'kept');
    await makeExt4({ rootDir, imagePath, sizeMb: 256, seed: SEED, signal });

    const agent = join(scratch.path, 'agent');
    await mkdir(join(agent, 'bin'), { recursive: true });
    await writeFile(join(agent, 'bin/run'), '#!/bin/sh\n');
    await chmod(join(agent, 'bin/run'), 0o755);
    await symlink('run', join(agent, 'bin/link'));
    await replaceFolder(imagePath, '/opt/wrenn', agent, signal);

    expect(await inspect(imagePath, 'cat /opt/wrenn/bin/run')).toBe('#!/bin/sh\n');
    expect(await inspect(imagePath, 'stat /opt/wrenn/bin/run')).toMatch(/Mode: {2}0755[\s\S]*User: +0 +Group: +0/);
    expect(await inspect(imagePath, 'stat /opt/wrenn/bin/link')).toContain('Fast link dest: "run"');
    expect(await inspect(imagePath, 'ls -p /opt/wrenn')).not.toContain('old');
    expect(await inspect(imagePath, 'cat /opt/other')).toBe('kept');

    await replaceFolder(imagePath, '/srv/deep/agent', agent, signal);
    expect(await inspect(imagePath, 'cat /srv/deep/agent/bin/run')).toBe('#!/bin/sh\n');
  });
});
