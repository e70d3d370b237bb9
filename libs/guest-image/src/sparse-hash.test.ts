import { createHash, randomBytes } from 'node:crypto';
import { open, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { hashSparseFile } from './sparse-hash.ts';
import { scratchFolder } from './testing/scratch.ts';

const signal = new AbortController().signal;
const MIB = 1024 * 1024;

describe('hashSparseFile', () => {
  it('gives the SHA-256 of all bytes, holes at the start, between and at the end included', async () => {
    await using scratch = await scratchFolder();
    const path = join(scratch.path, 'disk');
    const file = await open(path, 'w');
    await file.write(randomBytes(10_000), 0, 10_000, 3 * MIB);
    await file.write(randomBytes(2 * MIB + 77), 0, 2 * MIB + 77, 6 * MIB + 4096);
    await file.truncate(12 * MIB + 512);
    await file.close();
    expect((await stat(path)).blocks * 512).toBeLessThan(4 * MIB);
    const expected = createHash('sha256')
      .update(await readFile(path))
      .digest('hex');
    expect(await hashSparseFile(path, signal)).toBe(expected);
  });

  it('reads files without holes and of odd length', async () => {
    await using scratch = await scratchFolder();
    const path = join(scratch.path, 'file');
    const content = randomBytes(MIB + 3);
    await writeFile(path, content);
    expect(await hashSparseFile(path, signal)).toBe(createHash('sha256').update(content).digest('hex'));
  });
});
