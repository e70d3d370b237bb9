import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WrennError } from '@wrenn/protocol/errors';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CommandError, runCommand } from '../processes/run-command.ts';
import { asHostDiskFull } from './disk-full.ts';
import { checkFreeSpace, createBaseOverlay, createBlankOverlay, layOverlay } from './overlay.ts';

const MIB = 1024 * 1024;
let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-disk-'));
});
afterEach(() => rm(dir, { recursive: true }));

const signal = AbortSignal.timeout(60_000);

async function write(path: string, pattern: string, offsetMb: number): Promise<void> {
  await runCommand('qemu-io', ['-c', `write -P ${pattern} ${offsetMb}M 64k`, path]);
}

async function reads(path: string, pattern: string, offsetMb: number): Promise<boolean> {
  const text = await runCommand('qemu-io', ['-r', '-c', `read -P ${pattern} ${offsetMb}M 64k`, path]);
  return !text.includes('verification failed');
}

describe('the disk of a VM', () => {
  it('lies over the frozen disk, which outlives its snapshot and is never written', async () => {
    const base = join(dir, 'rootfs.ext4');
    await writeFile(base, Buffer.alloc(4 * MIB, 0x11));
    const snapshot = join(dir, 'snapshot');
    await mkdir(snapshot);
    const frozen = join(snapshot, 'disk.qcow2');
    const blank = join(snapshot, 'blank.qcow2');
    await createBaseOverlay(frozen, base, 16, signal);
    await write(frozen, '0x22', 1);
    await createBlankOverlay(blank, 16, signal);
    const disks = await Promise.all(
      ['a', 'b'].map(async (name) => {
        await mkdir(join(dir, name));
        return layOverlay(join(dir, name), blank, frozen);
      }),
    );
    const [a = '', b = ''] = disks;
    await write(a, '0x33', 2);
    await rm(snapshot, { recursive: true });
    expect(await reads(a, '0x11', 0)).toBe(true);
    expect(await reads(a, '0x22', 1)).toBe(true);
    expect(await reads(a, '0x33', 2)).toBe(true);
    expect(await reads(b, '0x11', 2), "the other VM's disk").toBe(true);
    expect(await reads(b, '0x00', 8), 'beyond the base').toBe(true);
    const info = JSON.parse(await runCommand('qemu-img', ['info', '--backing-chain', '--output=json', a]));
    expect(info.map((layer: { format: string }) => layer.format)).toEqual(['qcow2', 'qcow2', 'raw']);
    expect(info[0]['virtual-size']).toBe(16 * MIB);
    expect((await stat(a)).mode & 0o777).toBe(0o600);
  });
});

describe('a full disk', () => {
  it('is seen in codes and in the words of programs, however deep', () => {
    const code = Object.assign(new Error('write'), { code: 'ENOSPC' });
    const words = new CommandError('qemu-img create: code 1: Could not write: No space left on device');
    for (const cause of [code, words, new AggregateError([new Error('other'), code])]) {
      const wrapped = new Error('outer', { cause: new Error('inner', { cause }) });
      expect(asHostDiskFull(wrapped)).toMatchObject({ code: 'host_disk_full' });
    }
    expect(asHostDiskFull(new Error('other'))).toBeUndefined();
    expect(asHostDiskFull(new WrennError('vm_start_failed', {}, { cause: words }))?.code).toBe('host_disk_full');
  });

  it('is foreseen', async () => {
    await checkFreeSpace(dir);
    await expect(checkFreeSpace(dir, 2 ** 60)).rejects.toMatchObject({ code: 'host_disk_full' });
  });
});
