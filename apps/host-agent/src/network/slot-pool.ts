import type { Logger } from 'pino';
import { processesInNamespace } from '../processes/processes.ts';
import { CLAIMS_DIR, type ClaimOwner, claimSlot, releaseClaim } from './claims.ts';
import { exists, makeNamespace, removeNamespace } from './namespace.ts';
import { type Slot, slotOf } from './slot.ts';

export interface SlotPoolOptions {
  readonly owner: ClaimOwner;
  /** How many slots are kept ready ahead of need, asked anew for each. */
  readonly size: () => number;
  /** Awaited before each slot that is made ahead of need, so that no VM that is being started has to wait. */
  readonly quiet?: (signal: AbortSignal) => Promise<void>;
  readonly log: Logger;
  readonly claimsDir?: string;
}

/** Hands out network slots, some of them made ahead of need. Every slot is made anew for each VM. */
export class SlotPool {
  readonly #options: SlotPoolOptions;
  readonly #ready: Slot[] = [];
  readonly #closed = new AbortController();
  #replenishing: Promise<void> | undefined;
  #next = 1;

  constructor(options: SlotPoolOptions) {
    this.#options = options;
  }

  /** How many slots nobody has yet. */
  get readyCount(): number {
    return this.#ready.length;
  }

  /** A slot for the caller alone, who gives it back with `release`. */
  async acquire(signal: AbortSignal): Promise<Slot> {
    return this.#ready.pop() ?? (await this.#make(signal));
  }

  /** Removes the slot's namespace and gives the slot back to the machine. Idempotent. */
  async release(slot: Slot): Promise<void> {
    await removeNamespace(slot);
    await releaseClaim(slot.index, this.#options.claimsDir);
  }

  /** Brings the pool to its size, in the background. */
  replenish(): void {
    if (this.#closed.signal.aborted || this.#replenishing) return;
    this.#replenishing = this.#fill()
      .catch((error: unknown) => {
        if (this.#closed.signal.aborted) return;
        this.#options.log.warn({ err: error }, 'no network slot could be made ahead of need');
      })
      .finally(() => {
        this.#replenishing = undefined;
      });
  }

  /** Gives back the slots that nobody took. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort(new Error('the agent is stopping'));
    await this.#replenishing;
    await Promise.all(this.#ready.splice(0).map((slot) => this.release(slot)));
  }

  async #fill(): Promise<void> {
    const { size, quiet } = this.#options;
    for (;;) {
      await quiet?.(this.#closed.signal);
      if (this.#closed.signal.aborted || this.#ready.length === size()) return;
      if (this.#ready.length < size()) this.#ready.push(await this.#make(AbortSignal.timeout(30_000)));
      const surplus = this.#ready.length > size() ? this.#ready.pop() : undefined;
      if (surplus) await this.release(surplus);
    }
  }

  async #make(signal: AbortSignal): Promise<Slot> {
    for (;;) {
      const slot = await this.#claim();
      try {
        if (!(await clearLeftover(slot))) {
          // Something runs in there without a claim. It is not ours to end: use another slot.
          this.#options.log.warn({ slot: slot.index }, 'a namespace without an owner is in use');
          await releaseClaim(slot.index, this.#options.claimsDir);
          continue;
        }
        await makeNamespace(slot, signal);
        return slot;
      } catch (error) {
        await this.release(slot);
        throw error;
      }
    }
  }

  async #claim(): Promise<Slot> {
    // Going round instead of taking the lowest: a slot just given back rests, and late packets of its last user fade.
    const index = await claimSlot(this.#options.owner, this.#next, this.#options.claimsDir ?? CLAIMS_DIR);
    this.#next = index + 1;
    return slotOf(index);
  }
}

/** Removes what an earlier owner left of the slot. False when a process still runs in it. */
async function clearLeftover(slot: Slot): Promise<boolean> {
  const there = await Promise.all([exists(slot.namespacePath), exists(`/sys/class/net/${slot.veth}`)]);
  if (!there.includes(true)) return true;
  if ((await processesInNamespace(slot.namespacePath)).length > 0) return false;
  await removeNamespace(slot);
  return true;
}
