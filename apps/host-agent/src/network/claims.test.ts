import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { processKey } from '@wrenn/hypervisor/vm-process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  claimOwner,
  claimSlot,
  isVanished,
  listClaims,
  releaseClaim,
  removePartialClaims,
  withClaimsLock,
} from './claims.ts';
import { MAX_SLOT } from './slot.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-claims-'));
});
afterEach(() => rm(dir, { recursive: true }));

const owner = claimOwner('/nowhere');

describe('claimSlot', () => {
  it('never gives one slot twice', async () => {
    const indices = await Promise.all(Array.from({ length: 20 }, () => claimSlot(owner, 1, dir)));
    expect([...indices].sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
  });

  it('goes on around the end, past what is taken', async () => {
    await writeFile(join(dir, String(MAX_SLOT)), '{}');
    expect(await claimSlot(owner, MAX_SLOT, dir)).toBe(1);
    await releaseClaim(1, dir);
    await releaseClaim(1, dir);
    expect(await readdir(dir)).toEqual([String(MAX_SLOT)]);
  });

  it('says that the host is full when all are taken', async () => {
    for (let index = 1; index <= MAX_SLOT; index++) closeSync(openSync(join(dir, String(index)), 'w'));
    await expect(claimSlot(owner, 7, dir)).rejects.toMatchObject({ code: 'no_hosts_available' });
  });
});

describe('isVanished', () => {
  it('tells an owner that runs from one that ended', async () => {
    const child = spawn('sleep', ['60']);
    await once(child, 'spawn');
    const key = processKey(child.pid ?? 0);
    if (!key) throw new Error('no child');
    await claimSlot({ wrennDir: '/other', ...key }, 1, dir);
    const [claim] = await listClaims(dir);
    if (!claim) throw new Error('no claim');
    expect(isVanished(claim)).toBe(false);
    child.kill('SIGKILL');
    await once(child, 'close');
    expect(isVanished(claim)).toBe(true);
  });

  it('holds for a file that names nobody', async () => {
    await writeFile(join(dir, '5'), 'x');
    expect((await listClaims(dir)).map(isVanished)).toEqual([true]);
  });
});

describe('withClaimsLock', () => {
  it('lets one in at a time, and the next one also after a failure', async () => {
    const signal = AbortSignal.timeout(10_000);
    let inside = 0;
    let most = 0;
    const visit = async (fails: boolean) => {
      inside += 1;
      most = Math.max(most, inside);
      await new Promise(setImmediate);
      inside -= 1;
      if (fails) throw new Error('on purpose');
    };
    const all = [true, false, true, false].map((fails) => withClaimsLock(() => visit(fails), signal, dir));
    const results = await Promise.allSettled(all);
    expect(results.map((result) => result.status)).toEqual(['rejected', 'fulfilled', 'rejected', 'fulfilled']);
    expect(most).toBe(1);
  });
});

describe('removePartialClaims', () => {
  it('removes what was cut off long ago, and leaves what is being written', async () => {
    const [old, young] = [join(dir, '7.0123456789ab.partial'), join(dir, '8.0123456789ab.partial')];
    await Promise.all([old, young].map((path) => writeFile(path, '{')));
    const longAgo = new Date(Date.now() - 3_600_000);
    await utimes(old, longAgo, longAgo);
    await removePartialClaims(dir);
    expect(await readdir(dir)).toEqual(['8.0123456789ab.partial']);
  });
});
