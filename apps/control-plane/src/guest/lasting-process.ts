import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import type { Caller } from '../capsules/capsules.ts';
import { type GuestInUse, type RouteDeps, useGuest } from '../http/route-deps.ts';
import { explainBreak, isBroken } from './awake.ts';
import type { Guest } from './guest.ts';
import { attachProcess, type Command, type ProcessOutput, startProcess } from './processes.ts';

/** How long the way to a running guest may be broken: an agent is restarted, a host is silent for a while. */
const OUTAGE_MS = 120_000;
/** How long a stream waits for its sleeping capsule. */
const SLEEP_MS = 3_600_000;
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 1000;

/** Which process, whose, and what following it counts as. */
export interface LastingProcessOptions {
  readonly caller: Caller;
  readonly capsuleId: string;
  /** Pid or tag. */
  readonly selector: string;
  /** What keeps the capsule awake while its output is followed; undefined: only bytes do. */
  readonly detail: string | undefined;
}

/** How its output is come by at first. */
export type Beginning =
  /** `command` has the tag that the process is then found by. */
  | { readonly kind: 'start'; readonly command: Command; readonly timeoutMs: number | undefined }
  | {
      readonly kind: 'attach';
      /** Undefined: only what comes from now on. */
      readonly fromOffset: number | undefined;
      readonly whenAsleep: 'wake' | 'wait';
    };

/**
 * A process of a capsule beyond single connections to its guest: when one breaks, because the agent was restarted or the
 * capsule slept, the next one goes on at the byte where the last one ended.
 */
export class LastingProcess {
  readonly #deps: RouteDeps;
  readonly #options: LastingProcessOptions;

  constructor(deps: RouteDeps, options: LastingProcessOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /**
   * Yields `start` once, output without a gap or a repetition, and `end` once. Ending the iteration leaves the process
   * alone. It wakes its capsule at the beginning only; when that goes to sleep meanwhile, it waits for whoever wakes it.
   *
   * @throws WrennError `output_expired` where more was written meanwhile than the guest keeps
   */
  async *output(beginning: Beginning, signal: AbortSignal): AsyncGenerator<ProcessOutput> {
    const { capsuleId, selector } = this.#options;
    const outage = new Outage();
    const atFirst = beginning.kind === 'start' ? 'wake' : beginning.whenAsleep;
    let pid: number | undefined;
    let next = beginning.kind === 'attach' ? beginning.fromOffset : 0;
    let startError: unknown;
    let isSent = beginning.kind === 'attach';
    for (;;) {
      try {
        using use = await outage.exclude(this.#use(pid === undefined ? atFirst : 'wait', signal));
        const output =
          beginning.kind === 'start' && !isSent
            ? startToTheEnd(use.guest, beginning, signal)
            : attachProcess(use.guest, selector, next, signal);
        isSent = true;
        try {
          for await (const part of output) {
            outage.end();
            if (part.type === 'start') {
              if (pid === undefined) yield part;
              else if (part.pid !== pid) throw new WrennError('process_not_found', { selector });
              else if (next !== undefined && part.offset > next) {
                throw new WrennError('output_expired', { earliest: part.offset });
              }
              pid = part.pid;
              next = part.offset;
              continue;
            }
            this.#deps.activity.touch(capsuleId);
            if (part.type === 'data') next = part.offset + part.bytes.length;
            yield part;
            if (part.type === 'end') return;
          }
        } catch (error) {
          if (pid === undefined) startError ??= await explainBreak(this.#deps.db, use.capsule, error);
          throw error;
        }
      } catch (error) {
        signal.throwIfAborted();
        // A start that got lost on its way: why it did says more than that nothing is known of it.
        const isUnknown = error instanceof WrennError && error.code === 'process_not_found';
        if (beginning.kind === 'start' && pid === undefined && isUnknown) throw startError ?? error;
        await outage.next(error, signal);
      }
    }
  }

  /**
   * Does something to the process that is repeated when its connection breaks. Wakes a capsule that may wake by itself,
   * and waits for another.
   */
  async act<T>(work: (guest: Guest) => Promise<T>, signal: AbortSignal): Promise<T> {
    const outage = new Outage();
    for (;;) {
      try {
        using use = await outage.exclude(this.#use('wake-or-wait', signal));
        return await work(use.guest);
      } catch (error) {
        signal.throwIfAborted();
        await outage.next(error, signal);
      }
    }
  }

  #use(asleep: 'wake' | 'wait' | 'wake-or-wait', signal: AbortSignal): Promise<GuestInUse> {
    const { caller, capsuleId, detail } = this.#options;
    const limit = asleep === 'wake' ? {} : { limitMs: SLEEP_MS };
    return useGuest(this.#deps, caller, capsuleId, { detail, asleep, ...limit }, signal);
  }
}

/** A start that is under way is not given up when its client leaves, or nobody would know whether there is a process. */
async function* startToTheEnd(
  guest: Guest,
  { command, timeoutMs }: Extract<Beginning, { kind: 'start' }>,
  signal: AbortSignal,
): AsyncGenerator<ProcessOutput> {
  const started = new AbortController();
  const abort = () => started.abort(signal.reason);
  try {
    for await (const part of startProcess(guest, command, timeoutMs, started.signal)) {
      yield part;
      if (part.type !== 'start') continue;
      signal.addEventListener('abort', abort, { once: true });
      signal.throwIfAborted();
    }
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/** A time in which a guest cannot be reached, and the attempts to. */
class Outage {
  #sinceMs: number | undefined;
  #retryMs = FIRST_RETRY_MS;

  end(): void {
    this.#sinceMs = undefined;
    this.#retryMs = FIRST_RETRY_MS;
  }

  /** Waits for something whose time does not count: the sleep of a capsule is no outage. */
  async exclude<T>(work: Promise<T>): Promise<T> {
    const before = performance.now();
    const result = await work;
    if (this.#sinceMs !== undefined) this.#sinceMs += performance.now() - before;
    return result;
  }

  /** Waits before the next attempt. Throws the error when there shall be none. */
  async next(error: unknown, signal: AbortSignal): Promise<void> {
    if (!isBroken(error)) throw error;
    this.#sinceMs ??= performance.now();
    if (performance.now() - this.#sinceMs > OUTAGE_MS) throw error;
    await delay(this.#retryMs, undefined, { signal });
    this.#retryMs = Math.min(this.#retryMs * 2, LAST_RETRY_MS);
  }
}
