import { describe, expect, it } from 'vitest';
import type { TimedCapsule } from './lifetime-store.ts';
import { type Baseline, type Knowledge, nextStep, USE_TOLERANCE_MS } from './next-step.ts';

const NOW = 1_900_000_000_000;
const LAST_ACTIVE = NOW - 100_000;

function timed(times: Partial<Omit<TimedCapsule, 'capsule'>>, timeoutSec = 60): TimedCapsule {
  const capsule = { timeoutSec, lastActiveAt: new Date(LAST_ACTIVE) } as TimedCapsule['capsule'];
  return { capsule, idleInMs: null, deadlineInMs: null, ...times };
}

function known(facts: Partial<Knowledge> = {}): Knowledge {
  return { inUse: false, baseline: undefined, graceMs: 0, nowMs: NOW, ...facts };
}

const baseline: Baseline = {
  lastActiveMs: LAST_ACTIVE,
  takenMs: NOW - 10_000,
  cpu: { busy_ms: 0, uptime_ms: 0 },
};

describe('the idle timeout', () => {
  it('is waited for up to the time when CPU use is to be watched', () => {
    expect(nextStep(timed({ idleInMs: 30_000 }), known())).toEqual({ kind: 'wait', ms: 22_000 });
    expect(nextStep(timed({ idleInMs: 3000 }, 4), known())).toEqual({ kind: 'wait', ms: 3000 });
  });

  it('has the guest asked before, and again when it has come and other control planes had time to write', () => {
    expect(nextStep(timed({ idleInMs: 7000 }), known())).toEqual({ kind: 'sample' });
    expect(nextStep(timed({ idleInMs: 7000 }), known({ baseline }))).toEqual({ kind: 'wait', ms: 9000 });
    expect(nextStep(timed({ idleInMs: 0 }), known({ baseline }))).toEqual({ kind: 'wait', ms: USE_TOLERANCE_MS });
    expect(nextStep(timed({ idleInMs: -USE_TOLERANCE_MS }), known({ baseline }))).toEqual({ kind: 'judge', baseline });
  });

  it('that was shortened to the past has CPU use watched for its whole window', () => {
    const late = timed({ idleInMs: -90_000 });
    expect(nextStep(late, known())).toEqual({ kind: 'sample' });
    expect(nextStep(late, known({ baseline: { ...baseline, takenMs: NOW } }))).toEqual({ kind: 'wait', ms: 10_000 });
    expect(nextStep(late, known({ baseline }))).toEqual({ kind: 'judge', baseline });
  });

  it('does not judge by what was watched before the last use', () => {
    const old = { ...baseline, lastActiveMs: LAST_ACTIVE - 1 };
    expect(nextStep(timed({ idleInMs: -USE_TOLERANCE_MS }), known({ baseline: old }))).toEqual({ kind: 'sample' });
  });

  it('is a timeout away from a use that the database does not know', () => {
    expect(nextStep(timed({ idleInMs: -5000 }), known({ inUse: true, baseline }))).toEqual({
      kind: 'wait',
      ms: 52_000,
    });
  });

  it('waits for clients to come back after a start', () => {
    expect(nextStep(timed({ idleInMs: -5000 }), known({ graceMs: 25_000, baseline }))).toEqual({
      kind: 'wait',
      ms: 15_000,
    });
  });
});

describe('the deadline', () => {
  it('comes whatever the capsule does', () => {
    expect(nextStep(timed({ idleInMs: 5000, deadlineInMs: 0 }), known({ inUse: true, graceMs: 9 }))).toEqual({
      kind: 'end',
    });
  });

  it('is waited for also while nothing else is near', () => {
    expect(nextStep(timed({ deadlineInMs: 500 }), known())).toEqual({ kind: 'wait', ms: 500 });
    expect(nextStep(timed({ idleInMs: 30_000, deadlineInMs: 500 }), known())).toEqual({ kind: 'wait', ms: 500 });
    expect(nextStep(timed({ idleInMs: 0, deadlineInMs: 500 }), known({ baseline }))).toEqual({ kind: 'wait', ms: 500 });
  });
});
