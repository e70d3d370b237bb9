import { setTimeout as delay } from 'node:timers/promises';
import type { Capsule } from '../database/schema.ts';
import type { GuestPool } from '../guest/guest-pool.ts';
import { type CpuTime, cpuShare, type GuestActivity, MIN_CPU_WINDOW_MS, readGuestActivity } from './guest-activity.ts';

/**
 * vCPUs in use from which on a guest counts as at work. Of emulated guests on a host with seven
 * times as many busy processes as CPUs, an idle one was measured at 0.03 and one in an endless loop at 0.4, because a guest
 * counts only the time that it gets.
 */
export const BUSY_CPU_SHARE = 0.15;
/** Askers in this time share an answer, so that asking often does not itself keep the guest busy. */
const SHARED_MS = 2000;
/** What a guest used over a longer time than this says nothing about now. */
const HISTORY_MS = 60_000;
/** From this number of guests on those that nobody asked about lately are forgotten. */
const PRUNE_AT = 1000;

export interface CpuUse {
  /** vCPUs in use since the sample before. */
  readonly share: number;
  /** Begin of the time in which it was at work all along; undefined: it is not. */
  readonly busySince: Date | undefined;
}

export interface Observation {
  readonly activity: GuestActivity;
  readonly cpu: CpuUse | undefined;
}

interface History {
  readonly sample: CpuTime;
  readonly at: number;
  readonly use: CpuUse | undefined;
}

type Asked = Pick<Capsule, 'id' | 'hostId' | 'accessToken'>;

/** Asks guests what they are at, which never counts as a use of them. Remembers their CPU time to compare with. */
export class GuestProbes {
  readonly #guests: GuestPool;
  readonly #history = new Map<string, History>();
  readonly #recent = new Map<string, { readonly at: number; readonly observation: Promise<Observation> }>();

  constructor(guests: GuestPool) {
    this.#guests = guests;
  }

  /** @throws WrennError as `readGuestActivity` does */
  async probe(capsule: Asked, signal: AbortSignal): Promise<Observation> {
    const activity = await readGuestActivity(this.#guests.get(capsule), signal);
    return { activity, cpu: this.#note(capsule.id, activity.cpu) };
  }

  /**
   * The same as it was within the last two seconds, with its CPU use: of a guest that nobody asked about lately two samples are
   * taken.
   */
  observe(capsule: Asked, signal: AbortSignal): Promise<Observation> {
    const found = this.#recent.get(capsule.id);
    if (found && Date.now() - found.at < SHARED_MS) return found.observation;
    const observation = this.#observe(capsule, signal);
    this.#recent.set(capsule.id, { at: Date.now(), observation });
    observation.catch(() => {
      // A failure is nobody else's.
      if (this.#recent.get(capsule.id)?.observation === observation) this.#recent.delete(capsule.id);
    });
    return observation;
  }

  async #observe(capsule: Asked, signal: AbortSignal): Promise<Observation> {
    const first = await this.probe(capsule, signal);
    if (first.cpu) return first;
    try {
      await delay(MIN_CPU_WINDOW_MS, undefined, { signal });
      return await this.probe(capsule, signal);
    } catch {
      // What it said first is known; its CPU use is not, until somebody asks again.
      return first;
    }
  }

  #note(id: string, sample: CpuTime): CpuUse | undefined {
    const at = Date.now();
    const before = this.#history.get(id);
    const isOld = before !== undefined && (at - before.at > HISTORY_MS || sample.uptime_ms < before.sample.uptime_ms);
    if (before === undefined || isOld) {
      this.#remember(id, { sample, at, use: undefined });
      return undefined;
    }
    const share = cpuShare(before.sample, sample);
    if (share === undefined) return before.use;
    const busySince = share >= BUSY_CPU_SHARE ? (before.use?.busySince ?? new Date(before.at)) : undefined;
    const use = { share, busySince };
    this.#remember(id, { sample, at, use });
    return use;
  }

  #remember(id: string, history: History): void {
    this.#history.set(id, history);
    if (this.#history.size < PRUNE_AT) return;
    for (const [other, { at }] of this.#history) if (Date.now() - at > HISTORY_MS) this.#history.delete(other);
    for (const [other, { at }] of this.#recent) if (Date.now() - at > SHARED_MS) this.#recent.delete(other);
  }
}
