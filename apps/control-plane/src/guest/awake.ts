import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import type { CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import { findCapsule } from '../capsules/capsule-store.ts';
import { type Caller, type CapsulesDeps, requireCapsule, requireRunning } from '../capsules/capsules.ts';
import { resumeCapsule } from '../capsules/sleep.ts';
import type { Db } from '../database/database.ts';
import type { Capsule, OperationKind } from '../database/schema.ts';
import { findRunning } from '../operations/operation-store.ts';
import { unlessAborted } from './unless-aborted.ts';

/** How long a call waits for a capsule to wake up; under emulation, from the object store, that takes a while. */
const WAKE_TIMEOUT_MS = 300_000;
/** Between two looks at a capsule that nothing is done to. */
const LOOK_EVERY_MS = 500;
const RACE_PAUSE_MS = 50;

/**
 * What is done about a capsule that sleeps. `wake`: it is resumed where it may resume by itself, and is an error where
 * not. `wait`: somebody else is waited for. `wake-or-wait`: it is resumed where it may, and else waited for.
 */
export type WhenAsleep = 'wake' | 'wait' | 'wake-or-wait';

/** States that lead to sleep or out of it, and the operation that does. */
const UNDER_WAY: Partial<Record<CapsuleStatus, OperationKind>> = {
  pausing: 'capsule.pause',
  hibernating: 'capsule.hibernate',
  resuming: 'capsule.resume',
};
const ASLEEP: readonly CapsuleStatus[] = ['pausing', 'paused', 'hibernating', 'hibernated', 'resuming'];

function isSleeping({ status }: Pick<Capsule, 'status'>): boolean {
  return ASLEEP.includes(status);
}

/**
 * The capsule as soon as it runs. Many calls at once share one resume, on whichever control plane it was begun.
 *
 * @param signal ends the wait, and nothing else
 * @param limitMs how long to wait at most
 * @throws WrennError `capsule_not_found`, `host_unavailable`, `invalid_state`, `deadline_exceeded`, or why it cannot wake
 */
export async function requireAwake(
  deps: CapsulesDeps,
  caller: Caller,
  id: string,
  asleep: WhenAsleep,
  signal: AbortSignal,
  limitMs = WAKE_TIMEOUT_MS,
): Promise<Capsule> {
  const limit = AbortSignal.timeout(limitMs);
  const ended = AbortSignal.any([signal, limit]);
  try {
    for (;;) {
      const capsule = await requireCapsule(deps.db, caller.teamId, id);
      // A fork leaves its source running.
      if (capsule.status === 'running' || capsule.status === 'forking') return capsule;
      if (!isSleeping(capsule)) return await requireRunning(deps.db, caller.teamId, id);
      await onceMore(deps, caller, capsule, asleep, ended);
    }
  } catch (error) {
    signal.throwIfAborted();
    if (!limit.aborted) throw error;
    throw new WrennError('deadline_exceeded', { what: `The wait for capsule ${id} to wake`, timeout_ms: limitMs });
  }
}

/** Brings a capsule nearer to running, or waits until it may be. */
async function onceMore(
  deps: CapsulesDeps,
  caller: Caller,
  capsule: Capsule,
  asleep: WhenAsleep,
  signal: AbortSignal,
): Promise<void> {
  const kind = UNDER_WAY[capsule.status];
  if (kind) return settle(deps, capsule.id, kind, asleep, signal);
  if (asleep !== 'wait' && capsule.autoResume) {
    try {
      await unlessAborted(shareResume(deps, caller, capsule.id), signal);
    } catch (error) {
      // Somebody else began to; that one is waited for.
      if (!(error instanceof WrennError) || error.code !== 'invalid_state') throw error;
      await delay(RACE_PAUSE_MS, undefined, { signal });
    }
    return;
  }
  if (asleep === 'wake') {
    const needed = `running; resume it with POST /v1/capsules/${capsule.id}/resume, or set auto_resume`;
    throw new WrennError('invalid_state', { id: capsule.id, status: capsule.status, needed });
  }
  await delay(LOOK_EVERY_MS, undefined, { signal });
}

/** Resumes that were begun here for a call, so that those who come meanwhile share its outcome, a failure too. */
const resumes = new WeakMap<CapsulesDeps, Map<string, Promise<unknown>>>();

function shareResume(deps: CapsulesDeps, caller: Caller, id: string): Promise<unknown> {
  const shared = resumes.get(deps) ?? new Map<string, Promise<unknown>>();
  resumes.set(deps, shared);
  const underWay = shared.get(id);
  if (underWay) return underWay;
  const limit = AbortSignal.timeout(WAKE_TIMEOUT_MS);
  const begun = resumeCapsule(deps, caller, id, { memory: 'keep' }, limit).finally(() => shared.delete(id));
  shared.set(id, begun);
  return begun;
}

/** Waits for the end of what is done to a capsule. That a pause failed is no loss to whoever wants it awake. */
async function settle(
  { db, runner }: CapsulesDeps,
  id: string,
  kind: OperationKind,
  asleep: WhenAsleep,
  signal: AbortSignal,
): Promise<void> {
  const operation = await findRunning(db, id, kind);
  if (!operation) return delay(RACE_PAUSE_MS, undefined, { signal });
  try {
    await runner.wait(operation.id, signal);
  } catch (error) {
    if (signal.aborted || (kind === 'capsule.resume' && asleep === 'wake')) throw error;
    await delay(RACE_PAUSE_MS, undefined, { signal });
  }
}

/** Whether a call failed because the way to its guest broke, so that it may work over a new one. */
export function isBroken(error: unknown): error is WrennError {
  return error instanceof WrennError && (error.code === 'guest_unreachable' || error.code === 'host_unavailable');
}

/**
 * What a broken call is told: where its capsule went to sleep meanwhile, that says more than the connection does.
 *
 * @param seen the capsule as it was when the call began
 */
export async function explainBreak(db: Db, seen: Capsule, error: unknown): Promise<unknown> {
  if (!isBroken(error)) return error;
  const now = await findCapsule(db, seen.id);
  if (!now || (!isSleeping(now) && now.generation === seen.generation)) return error;
  const status = isSleeping(now) ? now.status : `${now.status} again after a pause`;
  const needed = 'awake during the whole call';
  return new WrennError('invalid_state', { id: seen.id, status, needed }, { cause: error });
}
