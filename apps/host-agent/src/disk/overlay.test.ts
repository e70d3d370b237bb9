import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WrennError } from '@wrenn/protocol/errors';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CommandError, runCommand } from '../processes/run-command.ts';
import { asHostDiskFull } from './disk-full.ts';
import { checkFreeSpace, createBlankOverlay } from './overlay.ts';

const MIB = 1024 * 1024;
let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-disk-'));
});
afterEach(() => rm(dir, { recursive: true }));

const signal = new AbortController().signal;

describe('a blank overlay', () => {
  it('has the size of the disk and is for root alone', async () => {
    const path = join(dir, 'blank.qcow2');
    await createBlankOverlay(path, 16, signal);
    const info = JSON.parse(await runCommand('qemu-img', ['info', '--output=json', path]));
    expect(info).toMatchObject({ format: 'qcow2', 'virtual-size': 16 * MIB });
    expect((await stat(path)).mode & 0o777).toBe(0o600);
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
