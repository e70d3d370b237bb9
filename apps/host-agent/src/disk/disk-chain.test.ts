import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DiskLayer, VmSpec } from '@wrenn/hypervisor/hypervisor';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCommand } from '../processes/run-command.ts';
import { copyDisk, diskFolder, diskOf, freezeDisk, layDisk, nextLayer } from './disk-chain.ts';
import { createBlankOverlay } from './overlay.ts';

const MIB = 1024 * 1024;
const BASE = ['0.raw'];

let root: string;
const dir = (name: string) => join(root, name);
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'wrenn-chain-'));
  for (const name of ['template', 'a', 'b', 'generation', 'fork']) await mkdir(dir(name));
  const template = diskFolder(dir('template'));
  await mkdir(template.layers);
  await writeFile(template.layer('0.raw'), Buffer.alloc(4 * MIB, 0x11));
  await createBlankOverlay(template.blank, 16, AbortSignal.timeout(60_000));
});
afterEach(() => rm(root, { recursive: true }));

/** The chain as QEMU is told it. */
function image(disk: VmSpec['disk']): string {
  const node = ([layer, ...below]: readonly DiskLayer[]): object | null => {
    if (!layer) return null;
    const file = { driver: 'file', filename: layer.path };
    return { driver: layer.format, file, ...(layer.format === 'qcow2' ? { backing: node(below) } : {}) };
  };
  return `json:${JSON.stringify(node([disk, ...(disk.backing ?? [])]))}`;
}

async function write(disk: VmSpec['disk'], pattern: string, offsetMb: number): Promise<void> {
  await runCommand('qemu-io', ['-c', `write -P ${pattern} ${offsetMb}M 64k`, image(disk)]);
}

async function read(disk: VmSpec['disk'], pattern: string, offsetMb: number): Promise<boolean> {
  const text = await runCommand('qemu-io', ['-r', '-c', `read -P ${pattern} ${offsetMb}M 64k`, image(disk)]);
  return !text.includes('verification failed');
}

describe('the disk of a VM', () => {
  it('lies over the layers of its snapshot, outlives it, and is its own', async () => {
    await layDisk(dir('template'), dir('a'), BASE);
    await layDisk(dir('template'), dir('b'), BASE);
    await rm(dir('template'), { recursive: true });
    const [a, b] = [diskOf(dir('a'), BASE), diskOf(dir('b'), BASE)];
    await write(a, '0x22', 1);
    expect(await read(a, '0x22', 1)).toBe(true);
    expect(await read(a, '0x11', 2)).toBe(true);
    expect(await read(b, '0x11', 1), "the other VM's disk").toBe(true);
    expect(await read(b, '0x00', 8), 'beyond the base').toBe(true);
  });

  it('becomes the top layer of a snapshot, from which others go on', async () => {
    await layDisk(dir('template'), dir('a'), BASE);
    await write(diskOf(dir('a'), BASE), '0x22', 1);
    await freezeDisk(dir('a'), dir('generation'), BASE);
    await rm(dir('a'), { recursive: true });
    const layers = [...BASE, nextLayer(BASE)];
    await layDisk(dir('generation'), dir('b'), layers);
    const b = diskOf(dir('b'), layers);
    await write(b, '0x33', 2);
    expect(await read(b, '0x22', 1)).toBe(true);
    expect(await read(b, '0x33', 2)).toBe(true);
    expect(await read(b, '0x11', 3)).toBe(true);
  });

  it('is copied for a fork, and both are written to apart', async () => {
    await layDisk(dir('template'), dir('a'), BASE);
    const a = diskOf(dir('a'), BASE);
    await write(a, '0x22', 1);
    await copyDisk(dir('a'), dir('fork'), BASE, AbortSignal.timeout(60_000));
    const layers = [...BASE, nextLayer(BASE)];
    await layDisk(dir('fork'), dir('b'), layers);
    const b = diskOf(dir('b'), layers);
    await write(a, '0x44', 1);
    await write(b, '0x55', 2);
    expect(await read(b, '0x22', 1)).toBe(true);
    expect(await read(a, '0x44', 1)).toBe(true);
    expect(await read(a, '0x11', 2)).toBe(true);
  });
});
