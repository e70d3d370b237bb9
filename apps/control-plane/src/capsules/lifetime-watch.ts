import { setTimeout as delay } from 'node:timers/promises';
import type { Capsule } from '../database/schema.ts';
import type { IsDue } from './capsules.ts';
import { isStillIdle, type JudgementDeps, judgeIdle, takeBaseline } from './idle-judgement.ts';
import { isDeadlineOver, listTimedCapsules, type TimedCapsule } from './lifetime-store.ts';
import { type Baseline, nextStep } from './next-step.ts';

/** The next look comes no sooner, however often somebody wakes this. */
const MIN_WAIT_MS = 100;
/** Another control plane may have changed a capsule's times. */
const MAX_WAIT_MS = 15_000;
/** What comes up to the next look, and the watching of CPU use before that. */
const HORIZON_MS = MAX_WAIT_MS + 15_000;
/** Guests that are asked, and capsules that are ended, at the same time. */
const MAX_AT_ONCE = 16;
/** After a start clients get this long to come back before a capsule counts as idle, or its timeout if that is less. */
const START_GRACE_MS = 30_000;
/** Time between two attempts to end the same capsule, doubled each time. */
const FIRST_RETRY_MS = 15_000;
const LAST_RETRY_MS = 600_000;

export interface LifetimeDeps extends JudgementDeps {
  /** Does what the capsule's `on_timeout` says, without waiting for its end. */
  readonly end: (capsule: Capsule, isDue: IsDue) => Promise<unknown>;
}

interface Attempt {
  readonly untilMs: number;
  readonly retryMs: number;
  /** Grows when a capsule has slept: then an earlier attempt has succeeded. */
  readonly generation: number;
}

/**
 * Ends capsules that nobody has used for their idle timeout and that are at no work, and those whose deadline has come.
 * Looks when it is told of a change, when the next one is due, and every 15 s.
 */
export class LifetimeWatch {
  readonly #deps: LifetimeDeps;
  readonly #startedMs = Date.now();
  readonly #working = new Map<string, Promise<void>>();
  readonly #baselines = new Map<string, Baseline>();
  readonly #attempts = new Map<string, Attempt>();
  #woken = Promise.withResolvers<void>();

  constructor(deps: LifetimeDeps) {
    this.#deps = deps;
  }

  /** Something was changed that may bring a time nearer. With an id: what failed for that capsule is tried again. */
  wake(id?: string): void {
    if (id !== undefined) this.#attempts.delete(id);
    this.#woken.resolve();
  }

  /** Watches until the signal ends it, and what it has under way. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = () => this.wake();
    signal.addEventListener('abort', stop);
    while (!signal.aborted) {
      this.#woken = Promise.withResolvers();
      const waitMs = await this.#look(signal);
      await delay(MIN_WAIT_MS, undefined, { signal }).catch(() => undefined);
      await this.#wait(Math.max(0, Math.min(waitMs, MAX_WAIT_MS) - MIN_WAIT_MS));
    }
    signal.removeEventListener('abort', stop);
    await Promise.all(this.#working.values());
  }

  /** @returns milliseconds until the next look */
  async #look(signal: AbortSignal): Promise<number> {
    let waitMs = MAX_WAIT_MS;
    try {
      const timed = await listTimedCapsules(this.#deps.db, HORIZON_MS);
      const ids = new Set(timed.map(({ capsule }) => capsule.id));
      for (const id of this.#baselines.keys()) if (!ids.has(id)) this.#baselines.delete(id);
      for (const [id, { untilMs }] of this.#attempts) {
        if (Date.now() > untilMs + LAST_RETRY_MS) this.#attempts.delete(id);
      }
      for (const one of timed) waitMs = Math.min(waitMs, this.#step(one, signal));
    } catch (err) {
      this.#deps.log.warn({ err }, 'could not look for capsules whose time has come');
    }
    return waitMs;
  }

  #step(timed: TimedCapsule, signal: AbortSignal): number {
    const { capsule } = timed;
    const { id } = capsule;
    // The end of what is under way wakes this.
    if (this.#working.has(id)) return MAX_WAIT_MS;
    const heldMs = this.#heldBackMs(capsule);
    if (heldMs > 0) return heldMs;
    const step = nextStep(timed, {
      inUse: this.#deps.activity.isInUse(id),
      baseline: this.#baselines.get(id),
      graceMs: this.#startedMs + Math.min(START_GRACE_MS, capsule.timeoutSec * 1000) - Date.now(),
      nowMs: Date.now(),
    });
    if (step.kind === 'wait') return step.ms;
    if (this.#working.size >= MAX_AT_ONCE) return MAX_WAIT_MS;
    const work = this.#carryOut(step, capsule, signal)
      .catch((err: unknown) => {
        if (signal.aborted) return;
        this.#deps.log.warn({ err, capsule: id }, 'could not do what a capsule’s time demands');
        if (this.#heldBackMs(capsule) <= 0) this.#holdBack(capsule, FIRST_RETRY_MS);
      })
      .finally(() => {
        this.#working.delete(id);
        this.wake();
      });
    this.#working.set(id, work);
    return MAX_WAIT_MS;
  }

  async #carryOut(
    step: Exclude<ReturnType<typeof nextStep>, { kind: 'wait' }>,
    capsule: Capsule,
    signal: AbortSignal,
  ): Promise<void> {
    const { id } = capsule;
    switch (step.kind) {
      case 'end':
        return this.#end(capsule, 'its deadline has come', (tx, now) => isDeadlineOver(tx, capsule, now));
      case 'sample':
        this.#baselines.set(id, await takeBaseline(this.#deps, capsule, signal));
        return undefined;
      case 'judge': {
        this.#baselines.delete(id);
        const judgement = await judgeIdle(this.#deps, capsule, step.baseline, signal);
        if (judgement.kind === 'again') this.#baselines.set(id, judgement.baseline);
        if (judgement.kind !== 'idle') return undefined;
        return this.#end(capsule, 'nobody has used it for its timeout', (_tx, now) =>
          isStillIdle(this.#deps, capsule, now),
        );
      }
    }
  }

  /** @param isDue whether it still is, at the very moment: its settings may have changed since it was looked at */
  async #end(capsule: Capsule, why: string, isDue: IsDue): Promise<void> {
    const { id, timeoutSec, onTimeout } = capsule;
    const before = this.#attempts.get(id);
    const isSecond = before?.generation === capsule.generation;
    const retryMs = isSecond ? Math.min(before.retryMs * 2, LAST_RETRY_MS) : FIRST_RETRY_MS;
    await this.#deps.end(capsule, async (tx, now) => {
      if (!(await isDue(tx, now))) return false;
      this.#deps.log.info({ capsule: id, timeoutSec, onTimeout, why }, 'ending a capsule’s time');
      this.#holdBack(capsule, retryMs);
      return true;
    });
  }

  /** A capsule that cannot be put to sleep runs on, and is not tried again at once. */
  #holdBack({ id, generation }: Capsule, retryMs: number): void {
    this.#attempts.set(id, { untilMs: Date.now() + retryMs, retryMs, generation });
  }

  #heldBackMs({ id, generation }: Capsule): number {
    const attempt = this.#attempts.get(id);
    return attempt?.generation === generation ? attempt.untilMs - Date.now() : 0;
  }

  async #wait(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const elapsed = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ms);
    });
    await Promise.race([elapsed, this.#woken.promise]);
    clearTimeout(timer);
  }
}
