import { readFile } from 'node:fs/promises';
import { WrennError } from '@wrenn/protocol/errors';
import { startStopwatch } from '@wrenn/testing/stopwatch';
import { until } from '@wrenn/testing/until';
import { sql } from 'drizzle-orm';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Database, openDatabase } from '../database/database.ts';
import { OwnerSession } from '../operations/owner-session.ts';
import { RedisServer } from '../testing/redis-server.ts';
import { createTestDatabase, type TestDatabase } from '../testing/test-database.ts';
import { hashToken } from '../tokens/one-time-tokens.ts';
import { announce } from './announce.ts';
import type { NewFleetingToken } from './fleeting-tokens.ts';
import { openSharedState, type SharedState } from './shared-state.ts';

const log = pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' });
const CHANNEL = 'wrenn_test';
const LOGIN = {
  purpose: 'oauth_state',
  subject: 'github',
  data: { a: 1 },
  lifetimeMs: 60_000,
} satisfies NewFleetingToken;
/** One command's time, and some for a busy machine. */
const SOON_MS = 5000;

/** What one of several control planes shares. */
interface Plane extends AsyncDisposable {
  readonly database: Database;
  readonly shared: SharedState;
  readonly heard: (string | undefined)[];
}

let made: TestDatabase;
beforeAll(async () => {
  made = await createTestDatabase();
});
afterAll(() => made[Symbol.asyncDispose]());

async function openPlane(redisUrl: string | undefined, secret = 'the same'): Promise<Plane> {
  await using stack = new AsyncDisposableStack();
  const database = stack.use(await openDatabase({ url: made.url, dir: '/nowhere', log }));
  const session = stack.use(await OwnerSession.open(database.connectClient, log));
  const heard: (string | undefined)[] = [];
  await session.listen(CHANNEL, (payload) => heard.push(payload));
  const shared = stack.use(
    openSharedState({
      ...{ db: database.db, pool: database.pool, redisUrl, platformSecret: Buffer.from(secret) },
      ...{ hearer: session, log },
    }),
  );
  if (redisUrl) await until('Redis is there', () => shared.checkRedis()?.ok);
  const opened = stack.move();
  return { database, shared, heard, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

async function timed<T>(work: Promise<T>): Promise<{ readonly result: T; readonly ms: number }> {
  using stopwatch = startStopwatch();
  return { result: await work, ms: stopwatch.elapsedMs };
}

async function rowsOf({ database }: Plane): Promise<number> {
  const { rows } = await database.db.execute<{ n: number }>(sql`SELECT count(*)::int AS n FROM one_time_tokens`);
  return rows[0]?.n ?? 0;
}

describe.each(['PostgreSQL', 'Redis'])('what control planes share by %s', (kind) => {
  let redis: RedisServer | undefined;
  let one: Plane;
  let other: Plane;
  beforeAll(async () => {
    redis = kind === 'Redis' ? await RedisServer.start() : undefined;
    [one, other] = await Promise.all([openPlane(redis?.url), openPlane(redis?.url)]);
  });
  afterAll(async () => {
    await Promise.all([one, other].map((plane) => plane?.[Symbol.asyncDispose]()));
    await redis?.[Symbol.asyncDispose]();
  });

  it('is a token that each of them takes, once', async () => {
    const token = await one.shared.tokens.put(LOGIN);
    expect(await rowsOf(one)).toBe(redis ? 0 : 1);
    expect(await other.shared.tokens.take('login_code', token)).toBeUndefined();
    expect(await other.shared.tokens.take('oauth_state', token)).toEqual({ subject: 'github', data: { a: 1 } });
    expect(await one.shared.tokens.take('oauth_state', token)).toBeUndefined();
  });

  it('is a token that one of many at the same moment gets', async () => {
    for (let round = 0; round < 10; round += 1) {
      const token = await one.shared.tokens.put(LOGIN);
      const takers = Array.from({ length: 16 }, (_, n) => (n % 2 ? one : other).shared.tokens);
      const taken = await Promise.all(takers.map((tokens) => tokens.take('oauth_state', token)));
      expect(taken.filter(Boolean)).toHaveLength(1);
    }
  });

  it('is a token that ends with its time', async () => {
    const token = await one.shared.tokens.put({ ...LOGIN, lifetimeMs: 1 });
    const last = await one.shared.tokens.put({ ...LOGIN, lifetimeMs: 30_000 });
    await until('its time is over', () => new Promise((resolve) => setTimeout(() => resolve(true), 5)));
    expect(await other.shared.tokens.take('oauth_state', token)).toBeUndefined();
    expect(await other.shared.tokens.take('oauth_state', last)).toBeDefined();
  });

  it('is a token that replaces those before it, of the same subject only', async () => {
    const challenge = { ...LOGIN, purpose: 'passkey_registration', replaces: true } as const;
    const [ofAnother, first] = [
      await one.shared.tokens.put({ ...challenge, subject: 'usr-2' }),
      await one.shared.tokens.put({ ...challenge, subject: 'usr-1' }),
    ];
    const second = await other.shared.tokens.put({ ...challenge, subject: 'usr-1' });
    expect(await one.shared.tokens.take('passkey_registration', first)).toBeUndefined();
    expect(await one.shared.tokens.take('passkey_registration', second)).toBeDefined();
    expect(await one.shared.tokens.take('passkey_registration', ofAnother)).toBeDefined();
  });

  it('is a count of attempts', async () => {
    const limit = { name: 'login:address', attempts: 5, perS: 60 };
    const limiters = [one, other].map(({ shared }) => shared.limiterOf(limit));
    const tries = Array.from({ length: 12 }, (_, n) => limiters[n % 2]?.consume('192.0.2.1'));
    const ends = await Promise.allSettled(tries);
    expect(ends.filter(({ status }) => status === 'fulfilled')).toHaveLength(5);
    await limiters[1]?.consume('192.0.2.2');
  });

  it('are announcements of transactions that were committed, and of those only', async () => {
    const { db } = one.database;
    other.heard.length = 0;
    await db.transaction(async (tx) => {
      await announce(tx, CHANNEL, 'first', 'second with spaces');
      await tx.transaction((inner) => announce(inner, CHANNEL, 'third'));
      const undone = tx.transaction(async (inner) => {
        await announce(inner, CHANNEL, 'of a savepoint that was rolled back');
        throw new Error('undone');
      });
      await expect(undone).rejects.toThrow('undone');
      // As long as an announcement takes that was sent too early.
      await new Promise((resolve) => setTimeout(resolve, 100));
      expect(other.heard).toEqual([]);
    });
    const undone = db.transaction(async (tx) => {
      await announce(tx, CHANNEL, 'rolled back');
      throw new Error('undone');
    });
    await expect(undone).rejects.toThrow('undone');
    await announce(db, CHANNEL, 'last');
    const told = () => other.heard.filter((payload) => payload !== undefined);
    await until('the last is heard', () => told().includes('last') && told().length >= 4);
    expect(told().toSorted()).toEqual(['first', 'last', 'second with spaces', 'third']);
    await until('who told it hears it too', () => one.heard.includes('third'));
  });
});

describe('without its Redis a control plane', () => {
  it('goes on with PostgreSQL, and says when nobody can know', { timeout: 180_000 }, async () => {
    await using redis = await RedisServer.start();
    await using one = await openPlane(redis.url);
    await using other = await openPlane(redis.url);
    const limiter = (plane: Plane) => plane.shared.limiterOf({ name: 'login:account', attempts: 3, perS: 60 });
    const before = await one.shared.tokens.put(LOGIN);
    await redis.kill();
    await until('that is known', () => ![one, other].some(({ shared }) => shared.checkRedis()?.ok));

    const refused = await timed(other.shared.tokens.take('oauth_state', before).catch((error: unknown) => error));
    expect(refused.result).toBeInstanceOf(WrennError);
    expect(refused.result).toMatchObject({ code: 'shared_state_unavailable', http: 503 });
    const put = await timed(one.shared.tokens.put(LOGIN));
    const { result: taken, ms } = await timed(other.shared.tokens.take('oauth_state', put.result));
    expect(taken).toBeDefined();
    await expect(one.shared.tokens.take('oauth_state', put.result)).rejects.toThrow(WrennError);
    expect(Math.max(refused.ms, put.ms, ms)).toBeLessThan(SOON_MS);
    const made = await one.shared.tokens.put(LOGIN);

    const ends = await Promise.allSettled([one, other, one, other].map((plane) => limiter(plane).consume('somebody')));
    expect(ends.filter(({ status }) => status === 'fulfilled')).toHaveLength(3);
    await one.database.db.transaction((tx) => announce(tx, CHANNEL, 'by PostgreSQL'));
    await until('it is heard', () => other.heard.includes('by PostgreSQL'));
    other.heard.length = 0;
    // Far more often than while Redis is there.
    using stopwatch = startStopwatch();
    await until('it looks by itself', () => other.heard.includes(undefined));
    expect(stopwatch.elapsedMs).toBeLessThan(2 * SOON_MS);

    await redis.start();
    await until('it is back', () => [one, other].every(({ shared }) => shared.checkRedis()?.ok));
    expect(await other.shared.tokens.take('oauth_state', before)).toBeUndefined();
    expect(await other.shared.tokens.take('oauth_state', made)).toBeDefined();
    const rows = await rowsOf(one);
    const after = await other.shared.tokens.put(LOGIN);
    expect(await rowsOf(one)).toBe(rows);
    expect(await one.shared.tokens.take('oauth_state', after)).toBeDefined();
    await one.database.db.transaction((tx) => announce(tx, CHANNEL, 'by Redis'));
    await until('it is heard', () => other.heard.includes('by Redis'));
  });

  it('waits for nothing that one which hangs does not answer', { timeout: 180_000 }, async () => {
    await using redis = await RedisServer.start();
    await using one = await openPlane(redis.url);
    redis.halt();
    const first = await timed(one.shared.tokens.put(LOGIN));
    const next = await timed(one.shared.tokens.take('oauth_state', first.result));
    expect(next.result).toBeDefined();
    expect(first.ms).toBeLessThan(SOON_MS);
    expect(one.shared.checkRedis()?.ok).toBe(false);
    redis.goOn();
    await until('it is back', () => one.shared.checkRedis()?.ok);
  });

  it('starts', async () => {
    await using redis = await RedisServer.start();
    await redis.kill();
    await expectStandIn(redis.url);
  });

  it('treats one that refuses its password as one that is away', async () => {
    await using redis = await RedisServer.start('--requirepass', 'secret');
    await expectStandIn(redis.url);
    await expectStandIn(redis.url.replace('//', '//:wrong@'));
    await using plane = await openPlane(redis.url.replace('//', '//:secret@'));
    const before = await rowsOf(plane);
    await plane.shared.tokens.put(LOGIN);
    expect(await rowsOf(plane)).toBe(before);
  });
});

async function expectStandIn(redisUrl: string): Promise<void> {
  await using made = await openPlane(undefined);
  const { db, pool } = made.database;
  const hearer = { hear: () => undefined, missed: () => undefined };
  await using shared = openSharedState({ db, pool, redisUrl, platformSecret: Buffer.from('x'), hearer, log });
  const before = await rowsOf(made);
  const token = await shared.tokens.put(LOGIN);
  expect(await rowsOf(made)).toBe(before + 1);
  expect(await shared.tokens.take('oauth_state', token)).toBeDefined();
  expect(shared.checkRedis()?.ok).toBe(false);
}

describe('a Redis', () => {
  it('that reads old files does not bring back a token that was taken', { timeout: 180_000 }, async () => {
    await using redis = await RedisServer.start();
    await using one = await openPlane(redis.url);
    const token = await one.shared.tokens.put(LOGIN);
    await redis.ask('SAVE');
    expect(await one.shared.tokens.take('oauth_state', token)).toBeDefined();
    await redis.kill();
    await redis.start();
    expect(await redis.ask('DBSIZE')).toBe(1);
    await until('it is back', () => one.shared.checkRedis()?.ok);
    expect(await one.shared.tokens.take('oauth_state', token)).toBeUndefined();
  });

  it('cannot be made to hold a token that no control plane made', async () => {
    await using redis = await RedisServer.start();
    await using one = await openPlane(redis.url);
    const [token, next] = [await one.shared.tokens.put(LOGIN), await one.shared.tokens.put(LOGIN)];
    const keys = (await redis.ask('KEYS', '*token*')) as string[];
    const own = keys.find((key) => key.endsWith(hashToken(token))) ?? '';
    const kept = String(await redis.ask('GET', own));
    await redis.ask('SET', own, kept.replace('github', 'usr-of-somebody'));
    expect(await one.shared.tokens.take('oauth_state', token)).toBeUndefined();
    await redis.ask('SET', keys.find((key) => key !== own) ?? '', kept);
    expect(await one.shared.tokens.take('oauth_state', next)).toBeUndefined();
    await redis.ask('SET', own, kept);
    expect(await one.shared.tokens.take('oauth_state', token)).toBeDefined();
  });

  it('may refuse all commands and keys but those that docs/fleet.md names', async () => {
    const text = await readFile(new URL('../../../../docs/fleet.md', import.meta.url), 'utf8');
    const commands = /Its user needs `([A-Z ]+)` on `wrenn:\*`/.exec(text)?.[1]?.toLowerCase().split(' ') ?? [];
    expect(commands).toContain('getdel');
    await using redis = await RedisServer.start();
    const rights = ['~wrenn:*', '&wrenn:*', ...commands.map((command) => `+${command}`)];
    await redis.ask('ACL', 'SETUSER', 'wrenn', 'on', '>secret', ...rights);
    await using one = await openPlane(redis.url.replace('//', '//wrenn:secret@'));
    const before = await rowsOf(one);
    const token = await one.shared.tokens.put({ ...LOGIN, replaces: true });
    await one.shared.tokens.put({ ...LOGIN, replaces: true });
    expect(await rowsOf(one)).toBe(before);
    expect(await one.shared.tokens.take('oauth_state', token)).toBeUndefined();
    await one.shared.limiterOf({ name: 'login:address', attempts: 5, perS: 60 }).consume('203.0.113.77');
    expect(await one.database.db.execute(sql`SELECT 1 FROM rate_limits WHERE key LIKE '%203.0.113.77'`)).toMatchObject({
      rowCount: 0,
    });
    await one.database.db.transaction((tx) => announce(tx, CHANNEL, 'allowed'));
    await until('it is heard', () => one.heard.includes('allowed'));
    expect(one.shared.checkRedis()?.ok).toBe(true);
  });

  it('is used by several platforms that know nothing of each other', async () => {
    await using redis = await RedisServer.start();
    await using one = await openPlane(redis.url, 'one platform');
    await using other = await openPlane(redis.url, 'another platform');
    const token = await one.shared.tokens.put(LOGIN);
    expect(await other.shared.tokens.take('oauth_state', token)).toBeUndefined();
    await one.database.db.transaction((tx) => announce(tx, CHANNEL, 'private'));
    await other.database.db.transaction((tx) => announce(tx, CHANNEL, 'own'));
    await until('each hears its own', () => one.heard.includes('private') && other.heard.includes('own'));
    expect(other.heard).not.toContain('private');
  });
});
