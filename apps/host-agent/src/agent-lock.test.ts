import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { lockWrennDir } from './agent-lock.ts';

describe('lockWrennDir', () => {
  it('lets in one at a time', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-lock-'));
    const first = await lockWrennDir(dir);
    await expect(lockWrennDir(dir)).rejects.toThrow(dir);
    (await lockWrennDir(`${dir}-other`))[Symbol.dispose]();
    first[Symbol.dispose]();
    (await lockWrennDir(dir))[Symbol.dispose]();
    await rm(dir, { recursive: true });
  });
});
