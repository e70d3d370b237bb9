import { setTimeout as delay } from 'node:timers/promises';
import { sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';

/** Samples lie on whole multiples of this since the epoch, whichever control plane takes them. */
export const SAMPLE_PERIOD_MS = 10_000;
/** After a multiple, so that a clock that is asked a moment later has passed it too. */
const MARGIN_MS = 20;

export interface TeamSamplerOptions {
  readonly db: Db;
  readonly signal: AbortSignal;
  readonly log: Logger;
  /** What time it is. The same clock for all control planes: the database's unless told. */
  readonly clock?: (() => Promise<Date>) | undefined;
}

/** Takes a sample of every team at each multiple of the period, until the signal ends this. */
export async function sampleTeamsRegularly({ db, signal, log, clock }: TeamSamplerOptions): Promise<void> {
  const now = clock ?? (() => databaseTime(db));
  while (!signal.aborted) {
    let waitMs = SAMPLE_PERIOD_MS;
    try {
      const began = await now();
      await sampleTeams(db, began);
      const restMs = SAMPLE_PERIOD_MS - (began.getTime() % SAMPLE_PERIOD_MS);
      waitMs = Math.max(restMs - ((await now()).getTime() - began.getTime()), 0) + MARGIN_MS;
    } catch (err) {
      log.warn({ err }, 'could not sample what teams hold');
    }
    await delay(waitMs, undefined, { signal }).catch(() => undefined);
  }
}

/**
 * Writes what every team that has had a capsule holds, zeros included, unless that was done for this period. Several
 * at once write one sample between them.
 *
 * @returns how many teams were sampled
 */
export async function sampleTeams(db: Db, at: Date): Promise<number> {
  const slot = new Date(at.getTime() - (at.getTime() % SAMPLE_PERIOD_MS)).toISOString();
  const { rowCount } = await db.execute(sql`
    INSERT INTO team_samples (team_id, sampled_at, running_count, vcpus_reserved, memory_mb_reserved)
    SELECT t.id, ${slot}::timestamptz, coalesce(l.running, 0), coalesce(l.vcpus, 0),
      coalesce(l.memory_mb + l.asleep_half_memory_mb, 0)
    FROM teams t LEFT JOIN team_load l ON l.team_id = t.id
    WHERE t.deleted_at IS NULL
      AND NOT EXISTS (SELECT FROM team_samples WHERE sampled_at = ${slot}::timestamptz AND team_id = t.id)
      AND EXISTS (SELECT FROM capsules c WHERE c.team_id = t.id)
    ON CONFLICT DO NOTHING`);
  return rowCount ?? 0;
}

async function databaseTime(db: Db): Promise<Date> {
  const { rows } = await db.execute<{ ms: number }>(
    sql`SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS ms`,
  );
  return new Date(Math.floor(rows[0]?.ms ?? 0));
}
