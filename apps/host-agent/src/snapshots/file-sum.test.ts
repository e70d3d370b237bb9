import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { sumFile } from './file-sum.ts';

const MIB = 1024 * 1024;

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-sum-'));
});
afterEach(() => rm(dir, { recursive: true }));

async function sumOf(content: Buffer): Promise<string> {
  const path = join(dir, 'file');
  await writeFile(path, content);
  return sumFile(path);
}

describe('sumFile', () => {
  it('is the same for holes and for written zeroes', async () => {
    const path = join(dir, 'sparse');
    await using file = await open(path, 'w');
    await file.truncate(9 * MIB + 5);
    await file.write(Buffer.from('x'), 0, 1, 5 * MIB);
    const written = Buffer.alloc(9 * MIB + 5);
    written.write('x', 5 * MIB);
    expect(await sumFile(path)).toBe(await sumOf(written));
  });

  it('is the same where large holes are not read', async () => {
    const path = join(dir, 'large');
    const size = 400 * MIB + 5;
    const marks = [3, 7 * MIB - 1, 7 * MIB, 300 * MIB + 17, size - 1];
    await using file = await open(path, 'w');
    await file.truncate(size);
    for (const at of marks) await file.write(Buffer.from('x'), 0, 1, at);
    const written = Buffer.alloc(size);
    for (const at of marks) written.write('x', at);
    expect(await sumFile(path)).toBe(await sumOf(written));
    await file.write(Buffer.from('y'), 0, 1, 200 * MIB);
    expect(await sumFile(path)).not.toBe(await sumOf(written));
  });

  it('differs by a byte, by its place, and by zeroes at the end', async () => {
    const sums = await Promise.all(
      [
        Buffer.from('a'),
        Buffer.from('b'),
        Buffer.from('\0a'),
        Buffer.from('a\0'),
        Buffer.alloc(0),
        Buffer.alloc(1),
      ].map(async (content, index) => {
        const path = join(dir, String(index));
        await writeFile(path, content);
        return sumFile(path);
      }),
    );
    expect(new Set(sums).size).toBe(sums.length);
  });

  it('tells a block from the same block elsewhere', async () => {
    const early = Buffer.alloc(6 * MIB);
    const late = Buffer.alloc(6 * MIB);
    early.write('x', 0);
    late.write('x', 4 * MIB);
    expect(await sumOf(early)).not.toBe(await sumOf(late));
  });
});
