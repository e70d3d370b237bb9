import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFile, replaceFile } from './atomic-file.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-atomic-'));
});
afterEach(() => rm(dir, { recursive: true }));

describe('replaceFile', () => {
  it('replaces content and sets the mode, leaving no temporary file', async () => {
    const path = join(dir, 'a');
    await replaceFile(path, 'one', { mode: 0o600 });
    await replaceFile(path, 'two', { mode: 0o600 });
    expect(await readFile(path, 'utf8')).toBe('two');
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await readdir(dir)).toEqual(['a']);
  });

  it('leaves nothing when the folder is missing', async () => {
    await expect(replaceFile(join(dir, 'no', 'a'), 'x')).rejects.toThrow(/ENOENT/);
    expect(await readdir(dir)).toEqual([]);
  });
});

describe('createFile', () => {
  it('lets exactly one of many writers win', async () => {
    const path = join(dir, 'a');
    const won = await Promise.all(['1', '2', '3', '4'].map((text) => createFile(path, text)));
    expect(won.filter(Boolean)).toHaveLength(1);
    expect(await readFile(path, 'utf8')).toBe(String(won.indexOf(true) + 1));
    expect(await readdir(dir)).toEqual(['a']);
  });
});
