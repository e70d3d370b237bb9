import type { CpuTime } from './guest-activity.ts';
import type { TimedCapsule } from './lifetime-store.ts';

/**
 * How much later than by the database's clock a capsule counts as idle: another control plane writes its uses within a
 * second, and that write may take one.
 */
export const USE_TOLERANCE_MS = 2000;
/** CPU use is judged over this time before a capsule would count as idle, or half of its timeout if that is less. */
const MAX_CPU_WINDOW_MS = 10_000;

/** What the guest had used when its CPU use began to be watched. */
export interface Baseline {
  /** The capsule's last use at that time, in Unix milliseconds; after another use it is of no worth. */
  readonly lastActiveMs: number;
  readonly takenMs: number;
  /** Undefined: the guest did not answer. */
  readonly cpu: CpuTime | undefined;
}

/** What is to be done with a capsule now. */
export type Step =
  | { readonly kind: 'wait'; readonly ms: number }
  /** Ask the guest how much CPU time it has used. */
  | { readonly kind: 'sample' }
  /** Ask again, and act if it is at nothing. */
  | { readonly kind: 'judge'; readonly baseline: Baseline }
  /** Its deadline has come. */
  | { readonly kind: 'end' };

export interface Knowledge {
  /** Whether it is in use as far as this control plane knows. */
  readonly inUse: boolean;
  readonly baseline: Baseline | undefined;
  /** As long as this after a start no capsule counts as idle: nobody could use it while there was no control plane. */
  readonly graceMs: number;
  /** Unix time in milliseconds. */
  readonly nowMs: number;
}

function cpuWindowMs(timeoutSec: number): number {
  return Math.min(MAX_CPU_WINDOW_MS, (timeoutSec * 1000) / 2);
}

export function nextStep({ capsule, idleInMs, deadlineInMs }: TimedCapsule, known: Knowledge): Step {
  if (deadlineInMs !== null && deadlineInMs <= 0) return { kind: 'end' };
  const wait = (ms: number): Step => ({ kind: 'wait', ms: Math.min(ms, deadlineInMs ?? Number.POSITIVE_INFINITY) });
  if (idleInMs === null) return wait(Number.POSITIVE_INFINITY);
  const windowMs = cpuWindowMs(capsule.timeoutSec);
  // It cannot become idle sooner than a timeout from now.
  const idleSoonestMs = known.inUse ? capsule.timeoutSec * 1000 : idleInMs;
  const untilIdleMs = Math.max(idleSoonestMs + USE_TOLERANCE_MS, known.graceMs);
  if (untilIdleMs > windowMs) return wait(untilIdleMs - windowMs);
  const { baseline } = known;
  if (!baseline || baseline.lastActiveMs !== lastActiveMs(capsule)) return { kind: 'sample' };
  const untilReadyMs = Math.max(untilIdleMs, baseline.takenMs + windowMs - known.nowMs);
  return untilReadyMs > 0 ? wait(untilReadyMs) : { kind: 'judge', baseline };
}

export function lastActiveMs({ lastActiveAt }: TimedCapsule['capsule']): number {
  return lastActiveAt?.getTime() ?? 0;
}
