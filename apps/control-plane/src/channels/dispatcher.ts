import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Channel, Delivery } from '../database/channel-schema.ts';
import type { Db } from '../database/database.ts';
import { DELIVERY_CHANNEL } from '../events/publish.ts';
import { type Attempt, type AttemptDeps, attempt } from './attempt.ts';
import {
  deleteEventsBefore,
  findDue,
  giveUpOld,
  leaseChannel,
  listNeglected,
  nextDueInMs,
  releaseLease,
  renewLease,
} from './delivery-store.ts';
import { type RecordDeps, recordAttempt } from './record-attempt.ts';

/** Channels that are told something at the same time by one control plane. */
const CONCURRENCY = 24;
/** After so many deliveries a channel lets others have its place, where some wait. */
const FAIR_SHARE = 20;
/** Longer than an attempt: a channel whose control plane has died is free again after this. */
const LEASE_MS = 30_000;
/** How often channels are looked for that nobody announced. */
const SWEEP_MS = 10_000;
const OUTAGE_RETRY_MS = 500;
/** How long attempts that are under way may go on when the control plane stops. */
const STOP_GRACE_MS = 2000;
const PRUNE_MS = 3_600_000;
/** How long events and their deliveries are kept. */
const KEEP_MS = 30 * 24 * 3_600_000;

export interface DispatcherDeps extends AttemptDeps, RecordDeps {
  readonly db: Db;
  /** Hears what is announced on one of PostgreSQL's channels; undefined: announcements may have been missed. */
  readonly listen: (channel: string, onPayload: (payload: string | undefined) => void) => Promise<void>;
  /** Only for tests: another time after which a channel is free that a dead control plane had. */
  readonly leaseMs?: number;
  /** Only for tests: another time between two looks for what nobody announced. */
  readonly sweepMs?: number;
}

/**
 * Tells channels what was published. Of several control planes one at a time works for a channel, one delivery after
 * the other, so that order is kept but for what has to be repeated. A delivery is told of as done only after it was, so
 * that one whose control plane dies is made again, under the same id.
 */
export class Dispatcher implements AsyncDisposable {
  readonly #deps: DispatcherDeps;
  readonly #holder = randomUUID();
  /** Channels that are worked for; true: something new was announced meanwhile. */
  readonly #working = new Map<string, boolean>();
  readonly #ends = new Set<Promise<void>>();
  readonly #waiting = new Set<string>();
  /** Fires when no new attempt is to begin. */
  readonly #stopping = new AbortController();
  /** Fires when attempts that are under way are to end too. */
  readonly #cutOff = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #sweeping: Promise<void> | undefined;
  #pruning: Promise<void> | undefined;

  private constructor(deps: DispatcherDeps) {
    this.#deps = deps;
  }

  static async start(deps: DispatcherDeps): Promise<Dispatcher> {
    const dispatcher = new Dispatcher(deps);
    await deps.listen(DELIVERY_CHANNEL, (id) => (id === undefined ? dispatcher.#sweepIn(0) : dispatcher.#want(id)));
    dispatcher.#sweepIn(0);
    dispatcher.#pruning = dispatcher.#prune(dispatcher.#stopping.signal);
    return dispatcher;
  }

  #want(id: string): void {
    if (this.#stopping.signal.aborted) return;
    if (this.#working.has(id)) this.#working.set(id, true);
    else if (this.#working.size >= CONCURRENCY) this.#waiting.add(id);
    else {
      this.#working.set(id, false);
      const end = this.#work(id).finally(() => {
        this.#ends.delete(end);
        const again = this.#working.get(id);
        this.#working.delete(id);
        if (again) this.#waiting.add(id);
        const [next] = this.#waiting;
        if (next === undefined) return;
        this.#waiting.delete(next);
        this.#want(next);
      });
      this.#ends.add(end);
    }
  }

  async #work(id: string): Promise<void> {
    const { db, log, leaseMs = LEASE_MS } = this.#deps;
    try {
      if (!(await leaseChannel(db, id, this.#holder, leaseMs))) return;
      try {
        for (let told = 1; !this.#stopping.signal.aborted; told++) {
          const channel = await renewLease(db, id, this.#holder, leaseMs);
          const due = channel && (await findDue(db, id));
          if (!due) return;
          await this.#tell(
            channel,
            due.delivery,
            await attempt(this.#deps, channel, toMessage(due), this.#cutOff.signal),
          );
          if (told >= FAIR_SHARE && this.#waiting.size > 0) {
            this.#working.set(id, true);
            return;
          }
        }
      } finally {
        await releaseLease(db, id, this.#holder);
      }
    } catch (err) {
      if (this.#cutOff.signal.aborted) return;
      log.warn({ err, channel: id }, 'could not work for a channel');
      this.#sweepIn(OUTAGE_RETRY_MS);
    }
  }

  /** It has happened, so that it is written down even if the database is away for a while. */
  async #tell(channel: Channel, delivery: Delivery, made: Attempt): Promise<void> {
    const { db, leaseMs = LEASE_MS, log } = this.#deps;
    const deadline = performance.now() + leaseMs;
    for (;;) {
      try {
        const retryInMs = await recordAttempt(db, this.#deps, channel, delivery, made);
        if (retryInMs !== undefined) this.#sweepIn(retryInMs);
        return;
      } catch (err) {
        if (performance.now() > deadline || this.#cutOff.signal.aborted) throw err;
        log.warn({ err, delivery: delivery.id }, 'could not record an attempt yet');
        await delay(OUTAGE_RETRY_MS, undefined, { signal: this.#cutOff.signal });
      }
    }
  }

  /** Looks after that time, or sooner where that was planned already. */
  #sweepIn(ms: number): void {
    const at = performance.now() + ms;
    if (this.#stopping.signal.aborted || at >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(() => {
      this.#timerAt = Number.POSITIVE_INFINITY;
      this.#sweeping = (this.#sweeping ?? Promise.resolve()).then(() => this.#sweep());
    }, ms);
  }

  async #sweep(): Promise<void> {
    const { db, log, sweepMs = SWEEP_MS } = this.#deps;
    if (this.#stopping.signal.aborted) return;
    try {
      for (const id of await listNeglected(db, this.#holder)) {
        if (!this.#working.has(id)) this.#want(id);
      }
      this.#sweepIn(Math.min((await nextDueInMs(db)) ?? sweepMs, sweepMs));
    } catch (err) {
      if (this.#stopping.signal.aborted) return;
      log.warn({ err }, 'could not look for deliveries');
      this.#sweepIn(OUTAGE_RETRY_MS);
    }
  }

  async #prune(signal: AbortSignal): Promise<void> {
    const { db, log } = this.#deps;
    while (!signal.aborted) {
      try {
        await giveUpOld(db);
        const removed = await deleteEventsBefore(db, new Date(Date.now() - KEEP_MS));
        if (removed > 0) log.info({ removed }, 'removed old events');
      } catch (err) {
        log.warn({ err }, 'could not remove old events');
      }
      await delay(PRUNE_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    clearTimeout(this.#timer);
    const grace = setTimeout(() => this.#cutOff.abort(), STOP_GRACE_MS);
    try {
      await Promise.all([...this.#ends, this.#pruning, this.#sweeping]);
    } finally {
      clearTimeout(grace);
    }
  }
}

function toMessage({ delivery, event }: NonNullable<Awaited<ReturnType<typeof findDue>>>) {
  return { deliveryId: delivery.id, event };
}
