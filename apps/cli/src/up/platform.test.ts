import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { expect, it } from 'vitest';
import { freeAddresses } from './addresses.ts';
import { startPlatform } from './platform.ts';

it.runIf(process.getuid?.() === 0)('makes no platform of a machine that is a host of another one', async () => {
  const root = await mkdtemp(join(tmpdir(), 'wrenn-up-'));
  try {
    const dir = wrennDir(root);
    await writeFile(dir.hostCredentials, '{}');
    const options = { dir, addresses: await freeAddresses(), onProgramEnded: () => undefined };
    await expect(startPlatform(options, AbortSignal.timeout(20_000))).rejects.toMatchObject({
      message: expect.stringContaining('is a host of another platform'),
      remedy: expect.stringContaining('wrenn host join'),
    });
    expect(await readdir(root)).toEqual(['host-token']);
  } finally {
    await rm(root, { recursive: true });
  }
});
