import type { STATS_RANGES, teamStatsSchema } from '@wrenn/protocol/rest/team-metrics';
import { sql } from 'drizzle-orm';
import type { z } from 'zod';
import type { Db } from '../database/database.ts';

export type StatsRange = (typeof STATS_RANGES)[number];
export type TeamStats = z.output<typeof teamStatsSchema>;
type Reserved = TeamStats['current'];

/** In seconds: how far back, and how long a bucket is. */
const RANGES: Record<StatsRange, { readonly spanS: number; readonly bucketS: number }> = {
  '5m': { spanS: 300, bucketS: 3 },
  '1h': { spanS: 3600, bucketS: 30 },
  '6h': { spanS: 6 * 3600, bucketS: 180 },
  '24h': { spanS: 24 * 3600, bucketS: 720 },
  '30d': { spanS: 30 * 24 * 3600, bucketS: 21_600 },
};
const PEAKS_S = RANGES['30d'].spanS;

/** What a team holds and held. Buckets without a sample, as those of a time when no control plane ran, are left out. */
export async function readTeamStats(db: Db, teamId: string, range: StatsRange, now: Date): Promise<TeamStats> {
  const [current, peaks, series] = await Promise.all([
    readCurrent(db, teamId),
    readPeaks(db, teamId, now),
    readSeries(db, teamId, RANGES[range], now),
  ]);
  return {
    range,
    current,
    // The last sample may be older than what is.
    peaks: {
      running_count: Math.max(peaks.running_count, current.running_count),
      vcpus_reserved: Math.max(peaks.vcpus_reserved, current.vcpus_reserved),
      memory_mb_reserved: Math.max(peaks.memory_mb_reserved, current.memory_mb_reserved),
    },
    series,
  };
}

async function readCurrent(db: Db, teamId: string): Promise<Reserved> {
  const { rows } = await db.execute<ReservedRow>(sql`
    SELECT running AS running_count, vcpus AS vcpus_reserved,
      memory_mb + asleep_half_memory_mb AS memory_mb_reserved
    FROM team_load WHERE team_id = ${teamId}`);
  return toReserved(rows[0]);
}

async function readPeaks(db: Db, teamId: string, now: Date): Promise<Reserved> {
  const { rows } = await db.execute<ReservedRow>(sql`
    SELECT max(running_count) AS running_count, max(vcpus_reserved) AS vcpus_reserved,
      max(memory_mb_reserved) AS memory_mb_reserved
    FROM team_samples WHERE team_id = ${teamId} AND sampled_at > ${before(now, PEAKS_S)} AND sampled_at <= ${now}`);
  return toReserved(rows[0]);
}

async function readSeries(
  db: Db,
  teamId: string,
  { spanS, bucketS }: { readonly spanS: number; readonly bucketS: number },
  now: Date,
): Promise<TeamStats['series']> {
  const { rows } = await db.execute<ReservedRow & { readonly bucket_s: string }>(sql`
    SELECT floor(extract(epoch FROM sampled_at) / ${bucketS}::int)::bigint * ${bucketS}::int AS bucket_s,
      max(running_count) AS running_count, max(vcpus_reserved) AS vcpus_reserved,
      max(memory_mb_reserved) AS memory_mb_reserved
    FROM team_samples WHERE team_id = ${teamId} AND sampled_at > ${before(now, spanS)} AND sampled_at <= ${now}
    GROUP BY 1 ORDER BY 1`);
  return {
    labels: rows.map(({ bucket_s }) => new Date(Number(bucket_s) * 1000).toISOString()),
    running: rows.map((row) => Number(row.running_count)),
    vcpus: rows.map((row) => Number(row.vcpus_reserved)),
    memory_mb: rows.map((row) => Number(row.memory_mb_reserved)),
  };
}

/** As the driver gives it: 64-bit numbers as texts, and null where there is no row. */
interface ReservedRow extends Record<string, unknown> {
  readonly running_count: string | number | null;
  readonly vcpus_reserved: string | number | null;
  readonly memory_mb_reserved: string | number | null;
}

function toReserved(row: ReservedRow | undefined): Reserved {
  return {
    running_count: Number(row?.running_count ?? 0),
    vcpus_reserved: Number(row?.vcpus_reserved ?? 0),
    memory_mb_reserved: Number(row?.memory_mb_reserved ?? 0),
  };
}

function before(now: Date, seconds: number): Date {
  return new Date(now.getTime() - seconds * 1000);
}
