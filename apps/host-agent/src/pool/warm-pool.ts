import type { Logger } from 'pino';
import { Demand } from './demand.ts';
import { poolSizes } from './pool-sizes.ts';
import type { StartActivity } from './start-activity.ts';
import type { PoolKind, WaitingVm } from './waiting-vm.ts';

/** How often it is asked whether less is wanted by now, and whether a template has changed. */
const REVIEW_MS = 5000;
/** A VM that cannot be made (no disk space, a broken template) is not tried again and again. */
const RETRY_AFTER_MS = 30_000;
/** Emulated, on a busy machine, and with pauses for starts that are more urgent. */
const PREPARE_TIMEOUT_MS = 300_000;

export interface WarmPoolOptions {
  /** What the VMs that wait may take of the host's memory together, each counted in full; 0 keeps none. */
  readonly maxMb: number;
  /** Free memory that filling leaves for VMs that are asked for. */
  readonly reserveMb: number;
  /** Memory of the host that is free now. */
  readonly availableMb: () => number;
  readonly activity: StartActivity;
  readonly log: Logger;
  /** A steady clock. */
  readonly nowMs?: () => number;
}

export interface WarmPoolStats {
  /** VMs that wait. */
  readonly waiting: number;
  /** VMs that would wait if there were memory for all. */
  readonly wanted: number;
  /** What those that wait may take of the host's memory. */
  readonly memoryMb: number;
  /** Creates that found a VM, and those that did not, since the agent started. */
  readonly taken: number;
  readonly missed: number;
  /** VMs that ended while they waited. */
  readonly lost: number;
}

interface Shelf<Vm extends WaitingVm> {
  kind: PoolKind<Vm>;
  readonly demand: Demand;
  ready: Vm[];
  retryAtMs: number;
}

interface Making {
  readonly key: string;
  readonly stop: AbortController;
  /** Settles when the VM waits, or is gone. */
  readonly over: Promise<void>;
}

/**
 * VMs that wait without a tenant. Filled in the background, one VM at a time, as far as creates of the last minutes
 * suggest, and never while a VM is being started. A VM leaves the pool before anything else happens to it, so nobody
 * gets it twice.
 */
export class WarmPool<Vm extends WaitingVm> {
  readonly #options: WarmPoolOptions;
  readonly #nowMs: () => number;
  readonly #shelves = new Map<string, Shelf<Vm>>();
  readonly #closed = new AbortController();
  readonly #discards = new Set<Promise<void>>();
  /** Could not be freed yet; tried again at every review. */
  readonly #stuck = new Set<Vm>();
  readonly #review: NodeJS.Timeout;
  #making: Making | undefined;
  #filling: Promise<void> | undefined;
  #counts = { taken: 0, missed: 0, lost: 0 };

  constructor(options: WarmPoolOptions) {
    this.#options = options;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#review = setInterval(() => this.refill(), REVIEW_MS).unref();
  }

  /** Notes that a create wants a VM of this kind. */
  note(kind: PoolKind<Vm>): void {
    if (this.#options.maxMb <= 0 || this.#closed.signal.aborted) return;
    let shelf = this.#shelves.get(kind.key);
    if (!shelf) {
      shelf = { kind, demand: new Demand(), ready: [], retryAtMs: Number.NEGATIVE_INFINITY };
      this.#shelves.set(kind.key, shelf);
    }
    shelf.kind = kind;
    shelf.demand.note(this.#nowMs());
    this.refill();
  }

  /** A VM of this kind, which is the caller's alone from now on; undefined when none waits. */
  take(key: string): Vm | undefined {
    const vm = this.#shelves.get(key)?.ready.shift();
    this.#counts[vm ? 'taken' : 'missed'] += 1;
    if (vm) this.#report(key, 'a VM left the warm pool');
    return vm;
  }

  /** Gives up one VM to free what it holds. False when there is none. */
  async evict(): Promise<boolean> {
    const [most] = [...this.#shelves.values()].sort((a, b) => b.ready.length - a.ready.length);
    const vm = most?.ready.pop();
    if (most && vm) {
      this.#report(most.kind.key, 'a VM of the warm pool was given up for one that is asked for');
      await this.discard(vm);
      return true;
    }
    const making = this.#making;
    if (!making) return false;
    making.stop.abort(new Error('what it holds is needed'));
    await making.over;
    return true;
  }

  /** Gives up all VMs of this kind, which must not be handed out any more. */
  async drain(key: string): Promise<void> {
    const shelf = this.#shelves.get(key);
    if (this.#making?.key === key) this.#making.stop.abort(new Error('its template has changed'));
    if (!shelf) return;
    this.#shelves.delete(key);
    if (shelf.ready.length === 0) return;
    this.#report(key, 'VMs of the warm pool are outdated');
    await Promise.all(shelf.ready.splice(0).map((vm) => this.discard(vm)));
  }

  /** Frees a VM that is in nobody's hands. What cannot be freed yet is tried again later. */
  async discard(vm: Vm): Promise<void> {
    const discard = vm.discard().then(
      () => {
        this.#stuck.delete(vm);
      },
      (error: unknown) => {
        this.#stuck.add(vm);
        this.#options.log.error({ vm: vm.vmId, err: error }, 'a VM of the warm pool cannot be freed yet');
      },
    );
    this.#discards.add(discard);
    await discard;
    this.#discards.delete(discard);
  }

  /** Brings the pool to its size, in the background. */
  refill(): void {
    if (this.#filling || this.#closed.signal.aborted) return;
    this.#filling = this.#fill()
      .catch((error: unknown) => {
        if (!this.#closed.signal.aborted) this.#options.log.error({ err: error }, 'the warm pool cannot be filled');
      })
      .finally(() => {
        this.#filling = undefined;
      });
  }

  stats(): WarmPoolStats {
    const shelves = [...this.#shelves.values()];
    const sum = (count: (shelf: Shelf<Vm>) => number) => shelves.reduce((total, shelf) => total + count(shelf), 0);
    return {
      waiting: sum(({ ready }) => ready.length),
      wanted: sum(({ demand }) => demand.wanted(this.#nowMs())),
      memoryMb: sum(({ ready, kind }) => ready.length * kind.memoryMb),
      ...this.#counts,
    };
  }

  /** Stops filling and ends every VM that waits. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#review);
    this.#closed.abort(new Error('the agent is stopping'));
    await this.#filling;
    const rest = [...this.#shelves.values()].flatMap(({ ready }) => ready.splice(0));
    this.#shelves.clear();
    await Promise.all([...rest, ...this.#stuck].map((vm) => this.discard(vm)));
    await Promise.all(this.#discards);
  }

  async #fill(): Promise<void> {
    await Promise.all([...this.#stuck].map((vm) => this.discard(vm)));
    for (;;) {
      await this.#options.activity.quiet(this.#closed.signal);
      await this.#drainOutdated();
      const sizes = this.#sizes();
      await this.#trim(sizes);
      const next = this.#next(sizes);
      if (!next) return;
      await this.#make(next);
    }
  }

  async #drainOutdated(): Promise<void> {
    for (const { kind } of [...this.#shelves.values()]) {
      if (!(await kind.isCurrent())) await this.drain(kind.key);
    }
  }

  #sizes(): Map<string, number> {
    const nowMs = this.#nowMs();
    const shares = [...this.#shelves.values()].map(({ kind: { key, memoryMb }, demand }) => {
      return { key, memoryMb, wanted: demand.wanted(nowMs) };
    });
    return poolSizes(shares, this.#options.maxMb);
  }

  async #trim(sizes: ReadonlyMap<string, number>): Promise<void> {
    for (const [key, shelf] of [...this.#shelves]) {
      const surplus = shelf.ready.splice(sizes.get(key) ?? 0);
      if (shelf.ready.length === 0 && shelf.demand.wanted(this.#nowMs()) === 0) this.#shelves.delete(key);
      if (surplus.length === 0) continue;
      this.#report(key, 'the warm pool needs fewer VMs');
      await Promise.all(surplus.map((vm) => this.discard(vm)));
    }
  }

  /** The kind that lacks most, if there is memory for one more. */
  #next(sizes: ReadonlyMap<string, number>): Shelf<Vm> | undefined {
    const { availableMb, reserveMb } = this.#options;
    const nowMs = this.#nowMs();
    const freeMb = availableMb() - reserveMb;
    const lacks = (shelf: Shelf<Vm>) => (sizes.get(shelf.kind.key) ?? 0) - shelf.ready.length;
    return [...this.#shelves.values()]
      .filter((shelf) => lacks(shelf) > 0 && shelf.retryAtMs <= nowMs && shelf.kind.memoryMb <= freeMb)
      .sort((a, b) => lacks(b) - lacks(a))[0];
  }

  async #make(shelf: Shelf<Vm>): Promise<void> {
    const { key } = shelf.kind;
    const stop = new AbortController();
    const over = this.#prepare(shelf, stop.signal);
    this.#making = { key, stop, over };
    await over;
    this.#making = undefined;
  }

  async #prepare(shelf: Shelf<Vm>, stop: AbortSignal): Promise<void> {
    const { activity, log } = this.#options;
    const { kind } = shelf;
    const given = AbortSignal.any([this.#closed.signal, stop]);
    const signal = AbortSignal.any([given, AbortSignal.timeout(PREPARE_TIMEOUT_MS)]);
    const vm = kind.begin();
    try {
      await vm.prepare(() => activity.quiet(signal), signal);
      given.throwIfAborted();
    } catch (error) {
      shelf.retryAtMs = this.#nowMs() + RETRY_AFTER_MS;
      if (!given.aborted)
        log.error({ vm: vm.vmId, key: kind.key, err: error }, 'no VM could be made for the warm pool');
      await this.discard(vm);
      return;
    }
    shelf.ready.push(vm);
    this.#report(kind.key, 'a VM waits in the warm pool');
    void vm.exited.then((how) => this.#lose(shelf, vm, how));
  }

  /** A VM that has been taken meanwhile is its tenant's. */
  #lose(shelf: Shelf<Vm>, vm: Vm, how: string): void {
    const place = shelf.ready.indexOf(vm);
    if (place < 0) return;
    shelf.ready.splice(place, 1);
    this.#counts.lost += 1;
    this.#options.log.error({ vm: vm.vmId, how }, 'a VM ended while it waited in the warm pool');
    this.#report(shelf.kind.key, 'a VM left the warm pool');
    void this.discard(vm).then(() => this.refill());
  }

  #report(key: string, event: string): void {
    const { waiting, wanted, memoryMb } = this.stats();
    this.#options.log.info({ key, waiting, wanted, memoryMb }, event);
  }
}
