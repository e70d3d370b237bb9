import { create } from '@bufbuild/protobuf';
import { timestampNow } from '@bufbuild/protobuf/wkt';
import { WrennError } from '@wrenn/protocol/errors';
import { VmSchema, VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { newId } from '@wrenn/protocol/ids';
import { until } from '@wrenn/testing/until';
import { eq, sql } from 'drizzle-orm';
import type { Pool } from 'pg';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Database, type Db, isDatabaseOutage } from '../database/database.ts';
import { teams } from '../database/people-schema.ts';
import { type Capsule, capsules, type Operation, type OperationKind, objectDeletions } from '../database/schema.ts';
import { openPooledDb } from '../database/transactions.ts';
import type { Host } from '../hosts/host.ts';
import { ensureHostRow } from '../hosts/host-store.ts';
import { insertOperation } from '../operations/operation-store.ts';
import { findSnapshot, insertSnapshot, markReady } from '../snapshots/snapshot-store.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { findCapsule, findCapsules, insertCapsule } from './capsule-store.ts';
import { lifecycleHandlers } from './lifecycle.ts';
import type { LifecycleDeps } from './lifecycle-deps.ts';
import { transition } from './transition.ts';
import { startChanges } from './vm-facts.ts';

const times = { receivedAtMs: 1, placedAtMs: 1 };

let database: Database;
let db: Db;
let hostId: string;
beforeAll(async () => {
  database = await openTestDatabase();
  db = database.db;
  await db.insert(teams).values({ id: 'team-test', name: 'test', slug: 'test' });
  hostId = await ensureHostRow(db, 'https://test:1');
});
afterAll(() => database[Symbol.asyncDispose]());

/** A capsule that is put into a state without a transition, as only a test may. */
async function capsuleIn(status: Capsule['status'], fields: Partial<Capsule> = {}): Promise<Capsule> {
  const { id } = await insertCapsule(db, {
    ...{ id: newId('cl'), teamId: 'team-test', hostId, template: 'minimal', vcpus: 1, memoryMb: 512 },
    ...{ diskRequestMb: 0, timeoutSec: 0, envs: {}, labels: {}, versions: {}, accessToken: 'secret' },
  });
  const [row] = await db
    .update(capsules)
    .set({ status, ...fields })
    .where(eq(capsules.id, id))
    .returning();
  if (!row) throw new Error('no row');
  return row;
}

const operationOf = (capsuleId: string, kind: OperationKind, args: Record<string, unknown>) =>
  insertOperation(db, { teamId: 'team-test', capsuleId, kind, actor: 'test', args, owner: 1 });

/** What a run does to its host without asking for anything that a test gives. */
interface Freed {
  readonly destroyed: string[];
  readonly forgotten: string[];
}

/** Runs an operation as one control plane does that sees this host. */
function run(operation: Operation, host: Partial<Host>, { over = db, freed }: { over?: Db; freed?: Freed } = {}) {
  const deps = {
    db: over,
    hostOf: () => ({
      id: hostId,
      destroyVm: async (id: string) => void freed?.destroyed.push(id),
      forgetVm: async (id: string) => void freed?.forgotten.push(id),
      ...host,
    }),
    guests: { evict: () => undefined },
    leftovers: { nudge: () => undefined },
    runner: () => ({ wait: async () => undefined }),
    log: pino({ level: 'silent' }),
  } as unknown as LifecycleDeps;
  const context = { signal: new AbortController().signal, step: () => undefined };
  return lifecycleHandlers(deps)[operation.kind](operation, context);
}

/** The database as one sees it whose connection breaks at a statement: before it was done, or before its reply came. */
function breakingAt(isIt: (text: string, values: unknown) => boolean, when: 'before' | 'after'): Db {
  const broken = async (query: () => Promise<unknown>) => {
    if (when === 'after') await query();
    throw new Error('Connection terminated unexpectedly');
  };
  const wrap = <T extends object>(target: T): T =>
    new Proxy(target, {
      get: (_, name) => {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== 'function') return value;
        const method = value.bind(target) as (...args: unknown[]) => Promise<unknown>;
        if (name === 'connect') return async () => wrap((await method()) as object);
        if (name !== 'query') return method;
        return (query: { text: string }, values: unknown) =>
          isIt(query.text, values) ? broken(() => method(query, values)) : method(query, values);
      },
    });
  return openPooledDb(wrap(database.pool) as Pool, isDatabaseOutage);
}

const movesTo = (status: Capsule['status']) => (text: string, values: unknown) =>
  text.startsWith('update "capsules"') && Array.isArray(values) && values.includes(status);

const untilSomebodyWaits = () =>
  until('somebody waits for a lock', async () => {
    const { rows } = await db.execute(
      sql`SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
    );
    return rows.length > 0;
  });

const vmOf = (id: string) =>
  create(VmSchema, { id, state: VmState.RUNNING, hostIp: '127.0.0.2', diskMb: 1, startedAt: timestampNow() });
const statusOf = async (id: string) => (await findCapsule(db, id))?.status;
const nothing = (): Freed => ({ destroyed: [], forgotten: [] });
const refuse = (): never => {
  throw new WrennError('internal_error');
};
/** What becomes of the call during which another run comes to its end. */
const ENDS = [
  ['is done too', () => undefined],
  ['fails', refuse],
] as const;

describe('of two runs of a hibernation', () => {
  async function hibernation() {
    const capsule = await capsuleIn('hibernating', { generation: 1 });
    const objectKey = `capsules/${capsule.id}/1-abcd`;
    return {
      ...{ id: capsule.id, capsule, objectKey },
      operation: await operationOf(capsule.id, 'capsule.hibernate', { generation: 1, hostId, objectKey }),
      doomed: async () =>
        (await db.select().from(objectDeletions).where(eq(objectDeletions.objectKey, objectKey))).length,
    };
  }
  const copies = { hibernateVm: async () => undefined };

  it.each(ENDS)('the slower leaves the copy alone, when its own %s', async (_, end) => {
    const { id, objectKey, operation, doomed } = await hibernation();
    const freed = nothing();
    const hibernateVm = async () => {
      await run(operation, copies);
      end();
    };
    expect(await run(operation, { hibernateVm }, { freed })).toEqual({});
    expect(await findCapsule(db, id)).toMatchObject({ status: 'hibernated', objectKey });
    expect(await doomed()).toBe(0);
    expect(freed.forgotten).toEqual([id]);
  });

  it('one that fails waits for the other that is about to record its end', async () => {
    const { id, capsule, objectKey, operation, doomed } = await hibernation();
    let failing: Promise<unknown> | undefined;
    await db.transaction(async (tx) => {
      await transition(tx, capsule, 'hibernated', { objectKey });
      failing = run(operation, { hibernateVm: async () => refuse() });
      await untilSomebodyWaits();
    });
    expect(await failing).toEqual({});
    expect(await findCapsule(db, id)).toMatchObject({ status: 'hibernated', objectKey });
    expect(await doomed()).toBe(0);
  });

  it.each(['before', 'after'] as const)(
    'the first gives nothing up when the database breaks %s its end is recorded',
    async (when) => {
      const { id, objectKey, operation, doomed } = await hibernation();
      const over = breakingAt(movesTo('hibernated'), when);
      await expect(run(operation, copies, { over })).rejects.toSatisfy(isDatabaseOutage);
      expect(await statusOf(id)).toBe(when === 'before' ? 'hibernating' : 'hibernated');
      expect(await run(operation, copies)).toEqual({});
      expect(await findCapsule(db, id)).toMatchObject({ status: 'hibernated', objectKey });
      expect(await doomed()).toBe(0);
    },
  );
});

describe('of two runs of a fork', () => {
  async function fork() {
    const source = await capsuleIn('forking');
    const children = [await capsuleIn('starting'), await capsuleIn('starting')].map(({ id }) => id);
    return {
      ...{ source, children },
      operation: await operationOf(source.id, 'capsule.fork', { ...times, children }),
      statuses: async () => (await findCapsules(db, children)).map(({ status }) => status),
    };
  }
  const made = (ids: readonly string[]) => ({ vms: ids.map(vmOf), trace: [] }) as never;

  it.each(ENDS)('the slower leaves the children alone, when its own %s', async (_, end) => {
    const { source, children, operation, statuses } = await fork();
    const freed = nothing();
    const forkVm = async () => {
      await run(operation, { forkVm: async () => made(children) });
      end();
      return made(children);
    };
    expect(await run(operation, { forkVm }, { freed })).toEqual({});
    expect(await statuses()).toEqual(['running', 'running']);
    expect(await statusOf(source.id)).toBe('running');
    expect(freed.destroyed).toEqual([]);
  });

  it('one that begins again leaves children alone that have been put to sleep since', async () => {
    const { children, operation, statuses } = await fork();
    const host = { forkVm: async () => made(children) };
    await run(operation, host);
    for (const id of children) await db.update(capsules).set({ status: 'paused' }).where(eq(capsules.id, id));
    const freed = nothing();
    expect(await run(operation, host, { freed })).toEqual({});
    expect(await statuses()).toEqual(['paused', 'paused']);
    expect(freed.destroyed).toEqual([]);
  });

  it('one that fails waits for the other that records the children: all are, or none', async () => {
    const { source, children, operation, statuses } = await fork();
    const freed = nothing();
    const [first = '', second = ''] = children;
    let attempts = 0;
    const count = (text: string) => {
      if (text.startsWith('begin')) attempts += 1;
      return false;
    };
    let failing: Promise<unknown> | undefined;
    await db.transaction(async (tx) => {
      await transition(tx, source, 'running');
      const start = async (id: string) => {
        const child = await findCapsule(tx, id);
        if (child?.status === 'starting') await transition(tx, child, 'running', startChanges(vmOf(id)));
      };
      await start(second);
      failing = run(operation, { forkVm: async () => refuse() }, { freed, over: breakingAt(count, 'before') });
      await untilSomebodyWaits();
      await start(first);
    });
    expect(await failing).toEqual({});
    expect(await statuses()).toEqual(['running', 'running']);
    expect(freed.destroyed).toEqual([]);
    // They did not wait for each other in a circle.
    expect(attempts).toBe(1);
  });

  it.each(['before', 'after'] as const)(
    'the first destroys nothing when the database breaks %s its end is recorded',
    async (when) => {
      const { children, operation, statuses } = await fork();
      const freed = nothing();
      const host = { forkVm: async () => made(children) };
      const over = breakingAt((text) => text === 'commit', when);
      await expect(run(operation, host, { over, freed })).rejects.toSatisfy(isDatabaseOutage);
      const status = when === 'before' ? 'starting' : 'running';
      expect(await statuses()).toEqual([status, status]);
      await run(operation, host, { freed });
      expect(await statuses()).toEqual(['running', 'running']);
      expect(freed.destroyed).toEqual([]);
    },
  );
});

describe('of two runs of a create', () => {
  async function creation() {
    const { id } = await capsuleIn('starting');
    return { id, operation: await operationOf(id, 'capsule.create', times), host: { createVm: async () => vmOf(id) } };
  }

  it.each(ENDS)('the slower leaves the microVM alone, when its own %s', async (_, end) => {
    const { id, operation, host } = await creation();
    const freed = nothing();
    const createVm = async () => {
      await run(operation, host);
      end();
      return vmOf(id);
    };
    expect(await run(operation, { createVm }, { freed })).toEqual({});
    expect(await statusOf(id)).toBe('running');
    expect(freed.destroyed).toEqual([]);
  });

  it.each(['before', 'after'] as const)(
    'the first destroys nothing when the database breaks %s its end is recorded',
    async (when) => {
      const { id, operation, host } = await creation();
      const freed = nothing();
      const over = breakingAt(movesTo('running'), when);
      await expect(run(operation, host, { over, freed })).rejects.toSatisfy(isDatabaseOutage);
      expect(await statusOf(id)).toBe(when === 'before' ? 'starting' : 'running');
      await run(operation, host, { freed });
      expect(await statusOf(id)).toBe('running');
      expect(freed.destroyed).toEqual([]);
    },
  );
});

describe('of two runs of a pause or a resume', () => {
  it.each(ENDS)('the slower is done with the other, when its own pause %s', async (_, end) => {
    const { id } = await capsuleIn('pausing');
    const operation = await operationOf(id, 'capsule.pause', { generation: 1 });
    const asleep = create(VmSchema, { id, state: VmState.PAUSED, generation: 1, sleptAt: timestampNow() });
    const paused = async () => ({ vm: asleep, trace: [] }) as never;
    const getVm = async () => undefined;
    const pauseVm = async () => {
      await run(operation, { pauseVm: paused, getVm });
      end();
      return paused();
    };
    expect(await run(operation, { pauseVm, getVm })).toEqual({});
    expect(await findCapsule(db, id)).toMatchObject({ status: 'paused', generation: 1 });
  });

  it.each(ENDS)('the slower is done with the other, when its own resume %s', async (_, end) => {
    const { id } = await capsuleIn('resuming', { generation: 1 });
    const args = { ...times, generation: 1, memory: 'keep', from: 'paused', reason: null, objectKey: null };
    const operation = await operationOf(id, 'capsule.resume', args);
    const getVm = async () => undefined;
    const resumeVm = async () => {
      await run(operation, { resumeVm: async () => vmOf(id), getVm });
      end();
      return vmOf(id);
    };
    expect(await run(operation, { resumeVm, getVm })).toEqual({});
    expect(await statusOf(id)).toBe('running');
  });
});

describe('of two runs of a snapshot', () => {
  it('one that fails leaves alone what the other has made', async () => {
    const { id: capsuleId } = await capsuleIn('running');
    const id = newId('snap');
    const shape = { vcpus: 1, memoryMb: 512, diskMb: 1 };
    await insertSnapshot(db, {
      ...{ ...shape, id, teamId: 'team-test', hostId, name: id, template: 'minimal', capsuleId, envs: {} },
    });
    const operation = await operationOf(capsuleId, 'capsule.snapshot', { snapshotId: id });
    const snapshotVm = async () => {
      await markReady(db, id, { ...shape, sizeBytes: 1 });
      return refuse();
    };
    expect(await run(operation, { snapshotVm })).toEqual({});
    expect(await findSnapshot(db, id)).toMatchObject({ status: 'ready' });
  });
});
