import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import type { Capsule } from '../database/schema.ts';
import type { CapsuleActivity } from './activity.ts';
import { cpuDetail, guestReasons } from './awake.ts';
import { findCapsule } from './capsule-store.ts';
import { cpuShare } from './guest-activity.ts';
import { BUSY_CPU_SHARE, type GuestProbes, type Observation } from './guest-probes.ts';
import { type Baseline, lastActiveMs } from './next-step.ts';

/** How long a guest may take to answer: one that is emulated, and at work on a crowded host, can need seconds. */
const PROBE_TIMEOUT_MS = 10_000;
/** Work is never ended because of one probe that failed. */
const PROBE_ATTEMPTS = 3;
const PROBE_RETRY_MS = 500;

export interface JudgementDeps {
  readonly db: Db;
  readonly activity: CapsuleActivity;
  readonly probes: GuestProbes;
  /** Only for tests: another time for a guest to answer. */
  readonly probeTimeoutMs?: number | undefined;
  readonly log: Logger;
}

/** `again`: the guest answers again, and its CPU use has to be watched first. */
export type Judgement =
  | { readonly kind: 'idle' }
  | { readonly kind: 'at work' }
  | { readonly kind: 'again'; readonly baseline: Baseline };

/** @throws WrennError `host_unavailable`: then nothing can be done to the capsule either */
export async function takeBaseline(deps: JudgementDeps, capsule: Capsule, signal: AbortSignal): Promise<Baseline> {
  const observation = await probePatiently(deps, capsule, PROBE_ATTEMPTS, signal);
  return { lastActiveMs: lastActiveMs(capsule), takenMs: Date.now(), cpu: observation?.activity.cpu };
}

/**
 * Whether a capsule that nobody has used for its timeout is at work by itself; then its idle time begins anew. What a
 * guest that does not answer is at is not known, and it counts as idle.
 *
 * @throws WrennError `host_unavailable`
 */
export async function judgeIdle(
  deps: JudgementDeps,
  capsule: Capsule,
  baseline: Baseline,
  signal: AbortSignal,
): Promise<Judgement> {
  const { activity, log } = deps;
  // One that has given no answer to so many questions gets one more.
  const attempts = baseline.cpu ? PROBE_ATTEMPTS : 1;
  const observation = await probePatiently(deps, capsule, attempts, signal);
  if (observation) {
    const { cpu } = observation.activity;
    const share = baseline.cpu && cpuShare(baseline.cpu, cpu);
    const details = guestReasons({ ...observation, cpu: undefined }, true).map(({ detail }) => detail);
    if (share !== undefined && share >= BUSY_CPU_SHARE) details.push(cpuDetail(share));
    if (details.length > 0) {
      log.debug({ capsule: capsule.id, details }, 'nobody uses it, but it is at work');
      activity.touch(capsule.id);
      return { kind: 'at work' };
    }
    if (share === undefined) return { kind: 'again', baseline: { ...baseline, takenMs: Date.now(), cpu } };
  }
  // Asking took a while.
  return (await isAsSeen(deps, capsule)) ? { kind: 'idle' } : { kind: 'at work' };
}

async function isAsSeen(deps: JudgementDeps, seen: Capsule): Promise<boolean> {
  const now = await findCapsule(deps.db, seen.id);
  return now !== undefined && isStillIdle(deps, seen, now);
}

/** Whether an idle capsule has been left alone since it was seen, and is to be ended in the same way. */
export function isStillIdle({ activity }: Pick<JudgementDeps, 'activity'>, seen: Capsule, now: Capsule): boolean {
  return (
    !activity.isInUse(seen.id) &&
    now.version === seen.version &&
    now.timeoutSec === seen.timeoutSec &&
    now.onTimeout === seen.onTimeout &&
    lastActiveMs(now) === lastActiveMs(seen)
  );
}

/** Undefined when the guest does not answer. */
async function probePatiently(
  { probes, probeTimeoutMs = PROBE_TIMEOUT_MS, log }: JudgementDeps,
  capsule: Capsule,
  attempts: number,
  signal: AbortSignal,
): Promise<Observation | undefined> {
  for (let attempt = 1; ; attempt += 1) {
    const timeout = AbortSignal.timeout(probeTimeoutMs);
    try {
      return await probes.probe(capsule, AbortSignal.any([signal, timeout]));
    } catch (err) {
      signal.throwIfAborted();
      if (err instanceof WrennError && err.code === 'host_unavailable') throw err;
      log.warn({ err, capsule: capsule.id, attempt }, 'a guest does not say whether it is at work');
      if (attempt === attempts) return undefined;
      await delay(PROBE_RETRY_MS, undefined, { signal });
    }
  }
}
