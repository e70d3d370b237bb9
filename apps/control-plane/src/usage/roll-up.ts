import { sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import type { Jobs } from '../jobs/jobs.ts';
import { ledgerByDay } from './usage-store.ts';

export const ROLL_UP_QUEUE = 'usage.roll-up';
/** Each time only what is still to be done, so that a night without control planes is made up for within the hour. */
const EVERY_HOUR = '7 * * * *';
const DEADLINE_MS = 30 * 60_000;

/** Has past days summed up, by one of the control planes. */
export function defineRollUp(jobs: Jobs, db: Db, log: Logger): void {
  jobs.define(ROLL_UP_QUEUE, { deadlineMs: DEADLINE_MS }, async (_data, signal) => {
    const days = await rollUpUsage(db, signal);
    if (days.length > 0) log.info({ days }, 'rolled up the usage of past days');
  });
  jobs.schedule(ROLL_UP_QUEUE, EVERY_HOUR);
}

/**
 * Sums up every past day that is not yet, the oldest first, each in a transaction of its own. The ledger never changes a
 * day that is rolled up.
 *
 * @returns the days that it did, as `2026-03-01`
 */
export async function rollUpUsage(db: Db, signal: AbortSignal): Promise<string[]> {
  const done: string[] = [];
  for (;;) {
    signal.throwIfAborted();
    const day = await findNextDay(db);
    if (day === undefined || (await hasOpenTransactions(db, day))) return done;
    if (await rollUpDay(db, day)) done.push(day);
  }
}

/** The oldest day that is over and not rolled up. */
async function findNextDay(db: Db): Promise<string | undefined> {
  const { rows } = await db.execute<{ day: string }>(sql`
    SELECT to_char(next.day, 'YYYY-MM-DD') AS day
    FROM (
      SELECT coalesce(
        (SELECT max(day) + 1 FROM rolled_up_days),
        (SELECT (min(started_at) AT TIME ZONE 'UTC')::date FROM usage_intervals)
      ) AS day
    ) AS next
    WHERE next.day < (wrenn_now() AT TIME ZONE 'UTC')::date`);
  return rows[0]?.day;
}

/** Whether somebody may still commit an entry of that day. The statement that sums it up sees all who are not here. */
async function hasOpenTransactions(db: Db, day: string): Promise<boolean> {
  const { rows } = await db.execute(sql`
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
      AND xact_start < (${day}::date + 1)::timestamp AT TIME ZONE 'UTC'
    LIMIT 1`);
  return rows.length > 0;
}

/** @returns false when another control plane did it meanwhile */
async function rollUpDay(db: Db, day: string): Promise<boolean> {
  return db.transaction(async (tx) => {
    const { rowCount } = await tx.execute(sql`
      INSERT INTO rolled_up_days (day) VALUES (${day}) ON CONFLICT DO NOTHING`);
    if (rowCount === 0) return false;
    await tx.execute(sql`
      INSERT INTO daily_usage (team_id, day, capsule_id, labels, vcpu_us, memory_mb_us, disk_mb_us)
      SELECT team_id, day, capsule_id, labels, vcpu_us, memory_mb_us, disk_mb_us
      FROM (SELECT wrenn_now() AS at) AS clock, ${ledgerByDay(sql`${day}::date`, sql`${day}::date`, sql`true`)}`);
    return true;
  });
}
