import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import { until } from '@wrenn/testing/until';
import { pino } from 'pino';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { insertCapsule } from '../capsules/capsule-store.ts';
import { ConnectionPool } from '../database/connection-pool.ts';
import { type Database, isDatabaseOutage } from '../database/database.ts';
import { teams } from '../database/people-schema.ts';
import type { Operation } from '../database/schema.ts';
import { openPooledDb } from '../database/transactions.ts';
import { ensureHostRow } from '../hosts/host-store.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { isRunAgain, type OperationHandler, type OperationHandlers, OperationRunner } from './operation-runner.ts';
import { findOperation, insertOperation, OWNER_LOCK_CLASS } from './operation-store.ts';
import { OwnerSession } from './owner-session.ts';

const log = pino({ level: 'silent' });

it('is left by who waits for an operation while the database is slow', async () => {
  await using database = await openTestDatabase();
  await using session = await OwnerSession.open(database.connectClient, log);
  await using runner = new OperationRunner(database.db, session, {} as OperationHandlers, log);
  const client = await database.connectClient();
  await client.query('BEGIN');
  await client.query('LOCK TABLE operations IN ACCESS EXCLUSIVE MODE');
  const leave = new AbortController();
  const waiting = runner.wait('op-1', leave.signal).then(
    () => 'waited',
    () => 'left',
  );
  leave.abort();
  // A rejection that nobody has taken by now ends the process.
  await delay(50);
  await client.end();
  expect(await waiting).toBe('left');
});

it('waits between runs of one that was cancelled while the database is away, and can be left', async () => {
  await using database = await openTestDatabase();
  await using session = await OwnerSession.open(database.connectClient, log);
  const operation = await insertPause(database, session.owner);
  await using pool = new ConnectionPool({ host: '127.0.0.1', port: 1 }, () => undefined);
  let runs = 0;
  const handler: OperationHandler = async (_, { signal }) => {
    runs += 1;
    if (!signal.aborted) await once(signal, 'abort');
    throw signal.reason;
  };
  const handlers = { 'capsule.pause': handler } as Partial<OperationHandlers> as OperationHandlers;
  const runner = new OperationRunner(openPooledDb(pool, isDatabaseOutage), session, handlers, log);
  runner.run(operation);
  const reason = new WrennError('capsule_not_found', { id: operation.capsuleId ?? '' });
  const cancelled = runner.cancelAllBut(operation.capsuleId ?? '', 'capsule.destroy', reason);
  await until('it was run again', () => runs > 1);
  await runner[Symbol.asyncDispose]();
  await cancelled;
  expect(runs).toBeLessThan(5);
});

/** Runs pauses by this handler, as a control plane of its own. */
async function startRunner(database: Database, handler: OperationHandler, connect = database.connectClient) {
  const stack = new AsyncDisposableStack();
  const session = stack.use(await OwnerSession.open(connect, log));
  const handlers = { 'capsule.pause': handler } as Partial<OperationHandlers> as OperationHandlers;
  const runner = stack.use(new OperationRunner(database.db, session, handlers, log));
  await runner.start();
  return { runner, owner: session.owner, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

async function insertPause({ db }: Database, owner: number): Promise<Operation> {
  await db.insert(teams).values({ id: 'team-test', name: 'test', slug: 'test' });
  const { id: capsuleId } = await insertCapsule(db, {
    ...{ id: newId('cl'), teamId: 'team-test', hostId: await ensureHostRow(db, 'https://test:1') },
    ...{ template: 'minimal', vcpus: 1, memoryMb: 512, diskRequestMb: 0, timeoutSec: 0 },
    ...{ envs: {}, labels: {}, versions: {}, accessToken: 'secret' },
  });
  return insertOperation(db, { teamId: 'team-test', capsuleId, kind: 'capsule.pause', actor: 'test', owner });
}

/** A way to the database that can be broken, and stays broken until it is mended. */
function breakable(database: Database) {
  let mended = Promise.resolve();
  return {
    connect: async () => {
      await mended;
      return database.connectClient();
    },
    breakNow: async (owner: number) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      mended = promise;
      await database.pool.query(
        `SELECT pg_terminate_backend(pid) FROM pg_locks
         WHERE locktype = 'advisory' AND classid::bigint = $1 AND objid::bigint = $2`,
        [OWNER_LOCK_CLASS, owner],
      );
      await until('its lock is free', async () => {
        const { rows } = await database.pool.query(
          `SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = $1 AND objid::bigint = $2`,
          [OWNER_LOCK_CLASS, owner],
        );
        return rows.length === 0;
      });
      return { mend: resolve };
    },
  };
}

describe('a control plane that was taken for dead', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  it('stops working on what another one took over, when it is back', async () => {
    // Nobody looks but at the start and on coming back.
    vi.useFakeTimers({ toFake: ['setInterval'] });
    await using database = await openTestDatabase();
    const way = breakable(database);
    const stopped = Promise.withResolvers<boolean>();
    await using first = await startRunner(
      database,
      (_, { signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            stopped.resolve(isRunAgain(signal.reason, signal));
            reject(signal.reason);
          });
        }),
      way.connect,
    );
    const operation = await insertPause(database, first.owner);
    first.runner.run(operation);
    const { mend } = await way.breakNow(first.owner);
    const release = Promise.withResolvers<void>();
    await using second = await startRunner(database, async () => {
      await release.promise;
      return {};
    });
    expect(await findOperation(database.db, operation.id)).toMatchObject({ owner: second.owner });
    mend();
    expect(await stopped.promise).toBe(true);
    expect(await findOperation(database.db, operation.id)).toMatchObject({ state: 'running' });
    release.resolve();
    await first.runner.wait(operation.id, AbortSignal.timeout(10_000));
  });

  it('goes on with what comes back to it, after its own run has stopped', async () => {
    vi.useFakeTimers({ toFake: ['setInterval'] });
    await using database = await openTestDatabase();
    const way = breakable(database);
    const [stopping, release] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const runs: string[] = [];
    await using first = await startRunner(
      database,
      async (_, { signal }) => {
        runs.push('begins');
        if (runs.length > 1) return {};
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
        stopping.resolve();
        await release.promise;
        runs.push('stops');
        throw signal.reason;
      },
      way.connect,
    );
    const operation = await insertPause(database, first.owner);
    first.runner.run(operation);
    const { mend } = await way.breakNow(first.owner);
    await using second = await startRunner(
      database,
      (_, { signal }) =>
        new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    );
    mend();
    await stopping.promise;
    await second[Symbol.asyncDispose]();
    first.runner.run(operation);
    release.resolve();
    await first.runner.wait(operation.id, AbortSignal.timeout(10_000));
    expect(runs).toEqual(['begins', 'stops', 'begins']);
  });
});
