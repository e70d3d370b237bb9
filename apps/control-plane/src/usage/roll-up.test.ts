import { newId } from '@wrenn/protocol/ids';
import { sql } from 'drizzle-orm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Database, Db } from '../database/database.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { rollUpUsage } from './roll-up.ts';
import { selectUsage } from './usage-store.ts';

const DAY_MS = 86_400_000;
const DAYS = 5;
const never = new AbortController().signal;

let database: Database;
let db: Db;
let teamId: string;

beforeAll(async () => {
  database = await openTestDatabase();
  db = database.db;
});
afterAll(() => database[Symbol.asyncDispose]());
beforeEach(async () => {
  await db.execute(sql`TRUNCATE teams, usage_intervals, daily_usage, rolled_up_days, capsule_egress CASCADE`);
  teamId = newId('team');
  await db.execute(sql`INSERT INTO teams (id, name, slug) VALUES (${teamId}, 'a team', ${teamId})`);
});

const dayBefore = (days: number) => new Date(Date.now() - days * DAY_MS).toISOString().slice(0, 10);
const range = { from: dayBefore(DAYS + 2), to: dayBefore(1) };
const byDay = () => selectUsage(db, teamId, range, { by: 'day' });

/** Twenty capsules that run from before the first day until now, and send something on each. */
async function addDays(): Promise<string[]> {
  const days = Array.from({ length: DAYS }, (_, n) => dayBefore(DAYS - n));
  await db.execute(sql`
    INSERT INTO usage_intervals (capsule_id, team_id, labels, state, vcpus, memory_mb, disk_mb, started_at)
    SELECT 'cl-' || n, ${teamId}, '{}', 'running', n, 512, 1024, ${`${days[0]}T06:00:00Z`}::timestamptz
    FROM generate_series(1, 20) AS n`);
  await db.execute(sql`
    INSERT INTO capsule_egress (capsule_id, team_id, day, bytes)
    SELECT 'cl-1', ${teamId}, day::date, 7 FROM generate_series(${days[0]}::date, ${days.at(-1)}::date, '1 day') AS day`);
  return days;
}

describe('the roll-up of past days', () => {
  it('changes no figure of theirs, and what was sent may still come', async () => {
    const days = await addDays();
    const before = await byDay();
    expect(before.map(({ key }) => key)).toEqual(days);
    expect(await rollUpUsage(db, never)).toEqual(days);
    expect(await byDay()).toEqual(before);
    await db.execute(sql`UPDATE capsule_egress SET bytes = bytes + 1`);
    const sent = (await byDay()).map(({ egressBytes }) => egressBytes);
    expect(sent).toEqual(days.map(() => 8n));
  });

  it('is done once for each day by several control planes at once', async () => {
    const days = await addDays();
    const before = await byDay();
    const done = await Promise.all(Array.from({ length: 4 }, () => rollUpUsage(db, never)));
    expect(done.flat().toSorted()).toEqual(days);
    expect(await byDay()).toEqual(before);
    const { rows } = await db.execute(sql`SELECT count(*)::int AS lines FROM daily_usage`);
    expect(rows).toEqual([{ lines: DAYS * 20 }]);
  });

  it('goes on where one was broken off', async () => {
    const days = await addDays();
    const stop = new AbortController();
    const half = rollUpUsage(db, stop.signal);
    stop.abort(new Error('this control plane stops'));
    await expect(half).rejects.toThrow('this control plane stops');
    const rest = await rollUpUsage(db, never);
    expect(rest).toEqual(days.slice(-rest.length));
    expect((await db.execute(sql`SELECT FROM rolled_up_days`)).rows).toHaveLength(DAYS);
  });

  it('makes up for all days that were missed, however long nobody did', async () => {
    await db.execute(sql`
      INSERT INTO usage_intervals (capsule_id, team_id, labels, state, vcpus, memory_mb, disk_mb, started_at, ended_at)
      VALUES ('cl-old', ${teamId}, '{}', 'running', 1, 1, 1, now() - interval '40 days', now() - interval '39 days')`);
    expect(await rollUpUsage(db, never)).toHaveLength(40);
    const [total] = await selectUsage(db, teamId, { from: dayBefore(41), to: dayBefore(0) }, { by: 'team' });
    expect(total?.vcpuUs).toBe(BigInt(DAY_MS) * 1000n);
  });
});
