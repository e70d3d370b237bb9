import { setTimeout as delay } from 'node:timers/promises';
import { until } from '@wrenn/testing/until';
import pino from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { StartActivity } from './start-activity.ts';
import type { PoolKind, WaitingVm } from './waiting-vm.ts';
import { WarmPool, type WarmPoolOptions } from './warm-pool.ts';

/** A VM that is made and freed in memory, and notes both. */
class FakeVm implements WaitingVm {
  readonly vmId: string;
  readonly #end = Promise.withResolvers<string>();
  readonly exited = this.#end.promise;
  discards = 0;
  readonly #prepare: (quiet: () => Promise<void>, signal: AbortSignal) => Promise<void>;
  failDiscards = 0;

  constructor(vmId: string, prepare: (quiet: () => Promise<void>, signal: AbortSignal) => Promise<void>) {
    this.vmId = vmId;
    this.#prepare = prepare;
  }

  prepare(quiet: () => Promise<void>, signal: AbortSignal): Promise<void> {
    return this.#prepare(quiet, signal);
  }

  end(): void {
    this.#end.resolve('it was killed');
  }

  async discard(): Promise<void> {
    this.discards += 1;
    if (this.discards <= this.failDiscards) throw new Error('busy');
  }
}

let activity: StartActivity;
let pool: WarmPool<FakeVm>;
let made: FakeVm[];
let nowMs: number;
let availableMb: number;

function open(over: Partial<WarmPoolOptions> = {}): WarmPool<FakeVm> {
  return new WarmPool<FakeVm>({
    maxMb: 10_000,
    reserveMb: 1000,
    availableMb: () => availableMb,
    activity,
    log: pino({ level: 'silent' }),
    nowMs: () => nowMs,
    ...over,
  });
}

beforeEach(() => {
  activity = new StartActivity();
  made = [];
  nowMs = 1_000_000;
  availableMb = 100_000;
  pool = open();
});
afterEach(() => pool[Symbol.asyncDispose]());

function kindOf(key: string, over: Partial<PoolKind<FakeVm>> & { prepare?: FakeVm['prepare'] } = {}): PoolKind<FakeVm> {
  const { prepare = () => delay(1), ...rest } = over;
  return {
    key,
    memoryMb: 512,
    isCurrent: async () => true,
    begin: () => {
      const vm = new FakeVm(`${key}-${made.length}`, prepare);
      made.push(vm);
      return vm;
    },
    ...rest,
  };
}

function ask(kind: PoolKind<FakeVm>, count: number): void {
  for (let i = 0; i < count; i++) pool.note(kind);
}

const waiting = (count: number) => until(`${count} wait`, () => pool.stats().waiting === count);

describe('a warm pool', () => {
  it('is empty until somebody asks, then holds what the last burst took', async () => {
    const kind = kindOf('a');
    expect(pool.take('a')).toBeUndefined();
    pool.refill();
    expect(pool.stats()).toMatchObject({ waiting: 0, wanted: 0, missed: 1 });
    ask(kind, 3);
    await waiting(3);
    expect(pool.stats()).toMatchObject({ wanted: 3, memoryMb: 1536 });
    expect(made).toHaveLength(3);
  });

  it('hands no VM out twice, whatever comes together', async () => {
    const kind = kindOf('a');
    const taken: FakeVm[] = [];
    ask(kind, 8);
    await waiting(8);
    await Promise.all(
      Array.from({ length: 40 }, async (_, i) => {
        await delay(i % 7);
        const vm = pool.take('a');
        if (vm) taken.push(vm);
        if (i % 5 === 0) await pool.evict();
        pool.refill();
      }),
    );
    expect(taken.length).toBeGreaterThan(0);
    expect(new Set(taken).size).toBe(taken.length);
    expect(taken.filter(({ discards }) => discards > 0)).toEqual([]);
  });

  it('keeps none when it may take no memory', async () => {
    await pool[Symbol.asyncDispose]();
    pool = open({ maxMb: 0 });
    ask(kindOf('a'), 5);
    await activity.quiet(AbortSignal.timeout(1000));
    expect(made).toEqual([]);
    expect(pool.stats()).toMatchObject({ waiting: 0, wanted: 0 });
  });

  it('stays within its memory, and within what the host can spare', async () => {
    await pool[Symbol.asyncDispose]();
    pool = open({ maxMb: 1100 });
    ask(kindOf('a'), 5);
    await waiting(2);
    availableMb = 1400;
    ask(kindOf('b', { memoryMb: 64 }), 1);
    await until('one of b is made', () => made.some(({ vmId }) => vmId.startsWith('b')));
    await waiting(3);
    expect(pool.stats().memoryMb).toBeLessThanOrEqual(1100);
    await pool[Symbol.asyncDispose]();
    made = [];
    pool = open();
    // 400 MiB above the reserve: none of 512.
    ask(kindOf('a'), 5);
    ask(kindOf('b', { memoryMb: 64 }), 1);
    await waiting(1);
    expect(made.map(({ vmId }) => vmId)).toEqual(['b-0']);
  });

  it('gives VMs up when fewer are wanted, and all when nobody asks any more', async () => {
    ask(kindOf('a'), 4);
    await waiting(4);
    nowMs += 300_000;
    pool.refill();
    await waiting(2);
    nowMs += 300_000;
    pool.refill();
    await waiting(0);
    expect(made.map(({ discards }) => discards)).toEqual([1, 1, 1, 1]);
  });

  it('makes nothing while a VM is being started', async () => {
    const steps: string[] = [];
    const proceed = Promise.withResolvers<void>();
    const kind = kindOf('a', {
      prepare: async (quiet) => {
        steps.push('begun');
        await proceed.promise;
        await quiet();
        steps.push('done');
      },
    });
    const first = activity.begin();
    ask(kind, 2);
    await delay(20);
    expect(made).toEqual([]);
    first[Symbol.dispose]();
    await until('a step has begun', () => steps.length === 1);
    const second = activity.begin();
    proceed.resolve();
    await delay(20);
    expect(steps).toEqual(['begun']);
    second[Symbol.dispose]();
    await waiting(2);
    expect(steps).toEqual(['begun', 'done', 'begun', 'done']);
  });

  it('makes one at a time', async () => {
    let now = 0;
    let most = 0;
    const prepare = async () => {
      most = Math.max(most, ++now);
      await delay(2);
      now -= 1;
    };
    ask(kindOf('a', { prepare }), 4);
    ask(kindOf('b', { prepare }), 4);
    await waiting(8);
    expect(most).toBe(1);
  });
});

describe('a VM of the pool', () => {
  it('that ends while it waits is freed, and another one made', async () => {
    ask(kindOf('a'), 1);
    await waiting(1);
    made[0]?.end();
    await until('two are made', () => made.length === 2);
    await waiting(1);
    expect(made[0]?.discards).toBe(1);
    expect(pool.take('a')).toBe(made[1]);
    expect(pool.stats().lost).toBe(1);
  });

  it('that ends after it was taken is none of the pool', async () => {
    ask(kindOf('a'), 1);
    await waiting(1);
    const vm = pool.take('a');
    vm?.end();
    await delay(5);
    expect(vm?.discards).toBe(0);
    expect(pool.stats().lost).toBe(0);
  });

  it('is given up when what it holds is needed', async () => {
    ask(kindOf('a'), 2);
    ask(kindOf('b'), 1);
    await waiting(3);
    const busy = activity.begin();
    expect([await pool.evict(), await pool.evict(), await pool.evict(), await pool.evict()]).toEqual([
      true,
      true,
      true,
      false,
    ]);
    expect(made.map(({ discards }) => discards)).toEqual([1, 1, 1]);
    busy[Symbol.dispose]();
  });

  it('is given up while it is made too, without waiting for the start that needs it', async () => {
    const prepare: FakeVm['prepare'] = (_quiet, signal) => delay(60_000, undefined, { signal });
    ask(kindOf('a', { prepare }), 1);
    await until('one is made', () => made.length === 1);
    using _busy = activity.begin();
    expect(await pool.evict()).toBe(true);
    expect(made[0]?.discards).toBe(1);
    expect(await pool.evict()).toBe(false);
  });

  it('that cannot be made is freed, and not tried again at once', async () => {
    const kind = kindOf('a', { prepare: () => Promise.reject(new Error('disk full')) });
    ask(kind, 3);
    await until('it is discarded', () => made[0]?.discards === 1);
    ask(kind, 1);
    await activity.quiet(AbortSignal.timeout(1000));
    expect(made).toHaveLength(1);
    nowMs += 30_001;
    pool.refill();
    await until('two are made', () => made.length === 2);
  });

  it('that cannot be freed at once is freed later', async () => {
    ask(kindOf('a'), 1);
    await waiting(1);
    const [vm] = made;
    if (!vm) throw new Error('no VM');
    vm.failDiscards = 1;
    await pool.evict();
    expect(vm.discards).toBe(1);
    pool.refill();
    await until('it is discarded again', () => vm.discards === 2);
  });
});

it('says how many wait whenever that changes', async () => {
  const said: number[] = [];
  const write = (line: string) => {
    const { waiting: count } = JSON.parse(line);
    if (count !== undefined) said.push(count);
  };
  await pool[Symbol.asyncDispose]();
  pool = open({ log: pino({}, { write }) });
  let isBlocked = false;
  const prepare: FakeVm['prepare'] = (_quiet, signal) => delay(isBlocked ? 60_000 : 1, undefined, { signal });
  ask(kindOf('a', { prepare }), 4);
  await waiting(4);
  isBlocked = true;
  made[0]?.end();
  await waiting(3);
  pool.take('a');
  await pool.evict();
  await pool.drain('a');
  expect(said).toEqual([1, 2, 3, 4, 3, 2, 1, 0]);
});

describe('outdated VMs', () => {
  it('are given up when they are drained, also one that is being made', async () => {
    let blocked = false;
    const proceed = Promise.withResolvers<void>();
    const kind = kindOf('a', { prepare: () => (blocked ? proceed.promise : delay(1)) });
    ask(kind, 2);
    await waiting(2);
    blocked = true;
    ask(kind, 1);
    await until('three are made', () => made.length === 3);
    await pool.drain('a');
    expect(pool.take('a')).toBeUndefined();
    proceed.resolve();
    await until('all are discarded', () => made.every(({ discards }) => discards === 1));
    expect(pool.stats()).toMatchObject({ waiting: 0, wanted: 0 });
  });

  it('are found by asking', async () => {
    let current = true;
    ask(kindOf('a', { isCurrent: async () => current }), 2);
    await waiting(2);
    current = false;
    pool.refill();
    await waiting(0);
    expect(made.map(({ discards }) => discards)).toEqual([1, 1]);
  });
});

it('a kind that is outdated while VMs of it are made gets no more of them', async () => {
  let current = true;
  const prepare = async () => {
    if (made.length === 2) current = false;
  };
  ask(kindOf('a', { prepare, isCurrent: async () => current }), 20);
  await until('all are given up', () => made.length === 2 && made.every(({ discards }) => discards === 1));
  await activity.quiet(AbortSignal.timeout(1000));
  expect(pool.stats()).toMatchObject({ waiting: 0, wanted: 0 });
  expect(made).toHaveLength(2);
});

describe('closing', () => {
  it('ends what waits and what is being made', async () => {
    let blocked = false;
    const prepare: FakeVm['prepare'] = (_quiet, signal) => delay(blocked ? 60_000 : 1, undefined, { signal });
    const kind = kindOf('a', { prepare });
    ask(kind, 1);
    await waiting(1);
    blocked = true;
    ask(kind, 1);
    await until('two are made', () => made.length === 2);
    await pool[Symbol.asyncDispose]();
    expect(made.map(({ discards }) => discards)).toEqual([1, 1]);
    ask(kind, 1);
    expect(pool.take('a')).toBeUndefined();
    expect(made).toHaveLength(2);
  });

  it('does not wait for starts that have not ended', async () => {
    using _busy = activity.begin();
    ask(kindOf('a'), 1);
    await pool[Symbol.asyncDispose]();
    expect(made).toEqual([]);
  });
});
