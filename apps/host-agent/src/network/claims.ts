import { once } from 'node:events';
import { mkdir, readdir, readFile, stat, unlink } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createFile, replaceFile } from '@wrenn/config/atomic-file';
import { isRunning, processKey } from '@wrenn/hypervisor/vm-process';
import { WrennError } from '@wrenn/protocol/errors';
import { z } from 'zod';
import { MAX_SLOT } from './slot.ts';

/** Where every agent of the machine puts its claims. On a tmpfs: a claim does not outlive what it claims. */
export const CLAIMS_DIR = '/run/wrenn/slots';

/** Writing a claim takes a moment. */
const PARTIAL_MS = 60_000;

const claimSchema = z.object({
  /** Real path of the owner's WRENN_DIR. */
  wrennDir: z.string(),
  pid: z.number().int(),
  startTicks: z.string(),
});

/** Who owns a slot: an agent's WRENN_DIR, and the process that runs it now. */
export type ClaimOwner = z.infer<typeof claimSchema>;

export interface Claim {
  readonly index: number;
  /** Undefined where the file holds no claim that can be read. */
  readonly owner: ClaimOwner | undefined;
}

/** This process as an owner. */
export function claimOwner(wrennDir: string): ClaimOwner {
  const self = processKey(process.pid);
  if (!self) throw new Error('/proc does not show this process');
  return { wrennDir, ...self };
}

/** Claims a slot that nobody has, the first one from `from` on, around the end. */
export async function claimSlot(owner: ClaimOwner, from: number, dir = CLAIMS_DIR): Promise<number> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const taken = new Set(await readdir(dir));
  for (let step = 0; step < MAX_SLOT; step++) {
    const index = ((from - 1 + step) % MAX_SLOT) + 1;
    if (taken.has(String(index))) continue;
    if (await createFile(join(dir, String(index)), JSON.stringify(owner), { mode: 0o600 })) return index;
  }
  throw new WrennError('no_hosts_available', { problem: 'all its network slots are in use.' });
}

/** Gives a claim back. The slot's namespace is gone by now. */
export async function releaseClaim(index: number, dir = CLAIMS_DIR): Promise<void> {
  await unlink(join(dir, String(index))).catch(ignoreMissing);
}

/** Makes a claim this process's own; the caller holds the lock and knows that it may. */
export async function takeOverClaim(index: number, owner: ClaimOwner, dir = CLAIMS_DIR): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  await replaceFile(join(dir, String(index)), JSON.stringify(owner), { mode: 0o600 });
}

export async function listClaims(dir = CLAIMS_DIR): Promise<Claim[]> {
  const names = await readdir(dir).catch(() => []);
  const indices = names.filter((name) => /^\d{1,4}$/.test(name)).map(Number);
  return Promise.all(indices.map(async (index) => ({ index, owner: await readOwner(join(dir, String(index))) })));
}

/** Whether no agent will come back for the claim by itself: its process is gone. */
export function isVanished(claim: Claim): boolean {
  return !claim.owner || !isRunning(claim.owner);
}

/**
 * Removes the halves of claims that were cut off while they were written. Young ones another agent of the machine may be
 * about to complete.
 */
export async function removePartialClaims(dir = CLAIMS_DIR): Promise<void> {
  const names = await readdir(dir).catch(() => []);
  const partial = names.filter((name) => name.endsWith('.partial')).map((name) => join(dir, name));
  await Promise.all(
    partial.map(async (path) => {
      const found = await stat(path).catch(ignoreMissing);
      if (found && found.mtimeMs < Date.now() - PARTIAL_MS) await unlink(path).catch(ignoreMissing);
    }),
  );
}

/**
 * Runs `action` while no other process of the machine changes claims that are not its own. The lock is an abstract
 * socket, which the kernel frees when the process ends in whatever way.
 */
export async function withClaimsLock<T>(action: () => Promise<T>, signal: AbortSignal, dir = CLAIMS_DIR): Promise<T> {
  const lock = createServer();
  for (;;) {
    signal.throwIfAborted();
    lock.listen(`\0wrenn-claims:${dir}`);
    const failure = await once(lock, 'listening').then(
      () => undefined,
      (error: NodeJS.ErrnoException) => error,
    );
    if (!failure) break;
    if (failure.code !== 'EADDRINUSE') throw failure;
    await sleep(20, undefined, { signal });
  }
  try {
    return await action();
  } finally {
    lock.close();
  }
}

async function readOwner(path: string): Promise<ClaimOwner | undefined> {
  try {
    return claimSchema.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch {
    // Given back meanwhile, or not a claim: both mean that nobody is named.
    return undefined;
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}
