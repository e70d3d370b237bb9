import { setTimeout as delay } from 'node:timers/promises';
import { until } from '@wrenn/testing/until';
import { sql } from 'drizzle-orm';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Database } from '../database/database.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { Jobs } from './jobs.ts';

const log = pino({ level: 'silent' });
const QUICK = { poll: 0.5, supervise: 1, heartbeat: 10 };
/** By looks of its own alone a worker would be far too slow for any test. */
const TOLD = { ...QUICK, poll: 300 };
let database: Database;
let stack: AsyncDisposableStack;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  database = stack.use(await openTestDatabase());
});
afterEach(() => stack.disposeAsync());

async function openJobs(define: (jobs: Jobs) => void, paceS?: typeof QUICK): Promise<Jobs> {
  const jobs = stack.use(await Jobs.open({ connection: database.connection, log, paceS: paceS ?? QUICK }));
  define(jobs);
  await jobs.start();
  return jobs;
}

describe('Jobs', () => {
  it('does a job exactly if its transaction is committed, and at once', async () => {
    const done: unknown[] = [];
    const define = (it: Jobs) => it.define('greet', { deadlineMs: 5000 }, async (data) => void done.push(data));
    const jobs = await openJobs(define, TOLD);
    await expect(
      database.db.transaction(async (tx) => {
        await jobs.enqueue(tx, 'greet', { name: 'nobody' });
        throw new Error('rolled back');
      }),
    ).rejects.toThrow('rolled back');
    await database.db.transaction((tx) => jobs.enqueue(tx, 'greet', { name: 'Ada' }));
    await until('it is done', () => done.length > 0);
    expect(done).toEqual([{ name: 'Ada' }]);
  });

  it('shares the jobs of two control planes, each done once', async () => {
    const done = new Map<number, string[]>();
    const define = (who: string) => (jobs: Jobs) =>
      jobs.define<{ n: number }>('share', { deadlineMs: 5000, concurrency: 3 }, async ({ n }) => {
        await delay(5);
        done.set(n, [...(done.get(n) ?? []), who]);
      });
    const first = await openJobs(define('a'));
    const second = await openJobs(define('b'));
    await database.db.transaction(async (tx) => {
      for (let n = 0; n < 60; n++) await (n % 2 ? first : second).enqueue(tx, 'share', { n });
    });
    await until('all are done', () => done.size === 60);
    expect([...done.values()].every((who) => who.length === 1)).toBe(true);
    expect(new Set([...done.values()].flat())).toEqual(new Set(['a', 'b']));
  });

  it('repeats what fails with a pause, and says which time is the last', async () => {
    const attempts: { number: number; isLast: boolean }[] = [];
    const jobs = await openJobs((it) =>
      it.define(
        'fail',
        { deadlineMs: 5000, retry: { limit: 2, delayMs: 1000, maxDelayMs: 1000 } },
        async (_data, _signal, attempt) => {
          attempts.push(attempt);
          throw new Error('not today');
        },
      ),
    );
    await jobs.enqueue(database.db, 'fail', {});
    await until('it gave up', () => attempts.length === 3);
    expect(attempts).toEqual([
      { number: 1, isLast: false },
      { number: 2, isLast: false },
      { number: 3, isLast: true },
    ]);
  });

  it('ends a run at its deadline and begins it again', async () => {
    const reasons: unknown[] = [];
    const jobs = await openJobs((it) =>
      it.define(
        'hang',
        { deadlineMs: 1000, retry: { limit: 1, delayMs: 0, maxDelayMs: 0 } },
        async (_data, signal, { number }) => {
          if (number === 2) return void reasons.push('second');
          await new Promise((resolve) => signal.addEventListener('abort', resolve));
          reasons.push('ended');
        },
      ),
    );
    await jobs.enqueue(database.db, 'hang', {});
    await until('it was repeated', () => reasons.length === 2);
    expect(reasons).toEqual(['ended', 'second']);
  });

  it('are done one right after the other where many wait', async () => {
    let done = 0;
    const define = (it: Jobs) =>
      it.define('many', { deadlineMs: 5000, concurrency: 2 }, async () => {
        done += 1;
      });
    const jobs = await openJobs(define, TOLD);
    // They are announced once for all. A look for each pair, every two seconds at best, would take twice the limit.
    await database.db.transaction(async (tx) => {
      for (let job = 0; job < 120; job += 1) await jobs.enqueue(tx, 'many', {});
    });
    await until('all are done', 60_000, () => done === 120);
  });

  it('puts in what is scheduled once for two control planes', async () => {
    const done: string[] = [];
    const define = (jobs: Jobs) => {
      jobs.define('tick', { deadlineMs: 5000 }, async () => void done.push('tick'));
      jobs.schedule('tick', '* * * * *');
    };
    await Promise.all([openJobs(define), openJobs(define)]);
    await until('it was its time', () => done.length > 0);
    // Another look of each of the two at the clock.
    await delay(2500);
    // By the minute for which each was put in: it may be made a moment after that.
    await until('each minute has one, which is done', async () => {
      const { rows } = await database.db.execute<{ minutes: number; jobs: number }>(sql`SELECT
        (SELECT count(DISTINCT singleton_on) FROM pgboss.job WHERE name = '__pgboss__send-it')::int AS minutes,
        (SELECT count(*) FROM pgboss.job WHERE name = 'tick')::int AS jobs`);
      return rows[0]?.jobs === rows[0]?.minutes && done.length === rows[0]?.jobs;
    });
  });

  it('waits until a job is due', async () => {
    let doneAt = 0;
    const jobs = await openJobs((it) =>
      it.define('later', { deadlineMs: 5000 }, async () => {
        doneAt = Date.now();
      }),
    );
    const due = Date.now() + 1500;
    await jobs.enqueue(database.db, 'later', {}, { startAfter: new Date(due) });
    await until('it is done', () => doneAt > 0);
    expect(doneAt).toBeGreaterThanOrEqual(due - 5);
  });

  it('keeps one waiting job a key, which sees what every asker committed', async () => {
    const seen: number[] = [];
    await database.db.execute(sql`CREATE TABLE asked (n integer)`);
    const jobs = await openJobs((it) =>
      it.define('digest', { deadlineMs: 5000 }, async () => {
        const { rows } = await database.db.execute<{ n: number }>(sql`DELETE FROM asked RETURNING n`);
        seen.push(...rows.map((row) => row.n));
      }),
    );
    const ask = (n: number) =>
      database.db.transaction(async (tx) => {
        await tx.execute(sql`INSERT INTO asked VALUES (${n})`);
        await jobs.enqueue(tx, 'digest', {}, { singletonKey: 'all' });
        // The worker has its chance to be too early.
        await delay(20);
      });
    await Promise.all(Array.from({ length: 12 }, (_, n) => ask(n)));
    await until('every one was seen', () => seen.length === 12);
    const { rows } = await database.db.execute<{ jobs: number }>(
      sql`SELECT count(*)::int AS jobs FROM pgboss.job WHERE name = 'digest'`,
    );
    expect(rows[0]?.jobs).toBeLessThanOrEqual(12);
    expect([...seen].sort((a, b) => a - b)).toEqual(Array.from({ length: 12 }, (_, n) => n));
  });

  it('tells running jobs to end when it stops, and others go on with them', async () => {
    const ran: string[] = [];
    const reasons: unknown[] = [];
    const define = (who: string) => (jobs: Jobs) =>
      jobs.define(
        'long',
        { deadlineMs: 60_000, retry: { limit: 3, delayMs: 0, maxDelayMs: 0 } },
        async (_data, signal) => {
          ran.push(who);
          if (who === 'b') return;
          await new Promise((resolve) => signal.addEventListener('abort', resolve));
          reasons.push(signal.reason);
          throw signal.reason;
        },
      );
    const first = await openJobs(define('a'));
    await first.enqueue(database.db, 'long', {});
    await until('it runs', () => ran.length === 1);
    await openJobs(define('b'));
    await first[Symbol.asyncDispose]();
    // Said at the begin of the stop; a job that is left when its time is over hears something else.
    expect(reasons).toEqual([new Error('this control plane stops')]);
    await until('the other one did it', () => ran.includes('b'));
    expect(ran).toEqual(['a', 'b']);
  });

  it('goes on after its connections broke', async () => {
    const done: unknown[] = [];
    const jobs = await openJobs((it) => it.define('after', { deadlineMs: 5000 }, async () => void done.push(1)));
    await database.db.execute(sql`
      SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid()`);
    await until('a job is taken again', async () => {
      await jobs.enqueue(database.db, 'after', {}).catch(() => undefined);
      return done.length > 0;
    });
  });

  it('refuses queues that nobody defined, and definitions that come too late', async () => {
    const jobs = await openJobs(() => undefined);
    await expect(jobs.enqueue(database.db, 'unknown', {})).rejects.toThrow('no queue unknown');
    expect(() => jobs.define('late', { deadlineMs: 1000 }, async () => undefined)).toThrow('after jobs were started');
  });
});
