import { type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';

/** Days, UTC, as `2026-03-01`: the first and the last one. */
export interface DayRange {
  readonly from: string;
  readonly to: string;
}

/** What sums are made for. Without a team: of all. */
export type UsageGroup =
  | { readonly by: 'day' | 'capsule' | 'team' }
  /** By the value that a label had at the time. */
  | { readonly by: 'label'; readonly label: string };

/** In units times microseconds, so that whoever rounds does it once. */
export interface UsageSums {
  readonly vcpuUs: bigint;
  readonly memoryMbUs: bigint;
  readonly diskMbUs: bigint;
  readonly egressBytes: bigint;
}

export interface UsageGroupSums extends UsageSums {
  /** A day, an id, or a label's value; null where there is no such label. */
  readonly key: string | null;
}

const NO_USAGE: UsageSums = { vcpuUs: 0n, memoryMbUs: 0n, diskMbUs: 0n, egressBytes: 0n };

/** The sums of groups together. */
export function sumUp(groups: readonly UsageSums[]): UsageSums {
  return groups.reduce(
    (sum, group) => ({
      vcpuUs: sum.vcpuUs + group.vcpuUs,
      memoryMbUs: sum.memoryMbUs + group.memoryMbUs,
      diskMbUs: sum.diskMbUs + group.diskMbUs,
      egressBytes: sum.egressBytes + group.egressBytes,
    }),
    NO_USAGE,
  );
}

/**
 * What the capsules of a team, or of all, used until now: past days from their roll-ups as far as there are, the others
 * from the ledger. In the order of the keys; groups that used nothing are left out.
 */
export async function selectUsage(
  db: Db,
  teamId: string | undefined,
  { from, to }: DayRange,
  group: UsageGroup,
): Promise<UsageGroupSums[]> {
  const ofTeam = teamId === undefined ? sql`true` : sql`team_id = ${teamId}`;
  const key = keyOf(group);
  const { rows } = await db.execute<Record<keyof UsageGroupSums, string> & { key: string | null }>(sql`
    WITH clock AS MATERIALIZED (SELECT wrenn_now() AS at),
    rolled AS MATERIALIZED (SELECT coalesce(max(day), 'epoch') AS last FROM rolled_up_days),
    part AS (
      SELECT team_id, day, capsule_id, labels, vcpu_us, memory_mb_us, disk_mb_us, 0 AS egress_bytes
      FROM daily_usage WHERE day BETWEEN ${from} AND ${to} AND ${ofTeam}
      UNION ALL
      SELECT team_id, day, capsule_id, labels, vcpu_us, memory_mb_us, disk_mb_us, 0
      FROM clock, rolled, ${ledgerByDay(sql`greatest(${from}::date, rolled.last + 1)`, sql`${to}::date`, ofTeam)}
      UNION ALL
      SELECT team_id, day, capsule_id, ${group.by === 'label' ? labelsAtDay : sql`NULL::jsonb`}, 0, 0, 0, bytes
      FROM capsule_egress e WHERE day BETWEEN ${from} AND ${to} AND ${ofTeam}
    )
    SELECT ${key} AS key, sum(vcpu_us)::text AS "vcpuUs", sum(memory_mb_us)::text AS "memoryMbUs",
      sum(disk_mb_us)::text AS "diskMbUs", sum(egress_bytes)::text AS "egressBytes"
    FROM part GROUP BY 1 ORDER BY 1 NULLS LAST`);
  return rows.map((row) => ({
    key: row.key,
    vcpuUs: BigInt(row.vcpuUs),
    memoryMbUs: BigInt(row.memoryMbUs),
    diskMbUs: BigInt(row.diskMbUs),
    egressBytes: BigInt(row.egressBytes),
  }));
}

function keyOf(group: UsageGroup): SQL {
  switch (group.by) {
    case 'day':
      return sql`to_char(day, 'YYYY-MM-DD')`;
    case 'capsule':
      return sql`capsule_id`;
    case 'team':
      return sql`team_id`;
    case 'label':
      return sql`labels ->> ${group.label}`;
  }
}

/** Egress is counted by the day: it goes to the labels that its capsule had at the end of it. */
const labelsAtDay = sql`(SELECT i.labels FROM usage_intervals i
  WHERE i.capsule_id = e.capsule_id AND i.started_at < (e.day + 1)::timestamp AT TIME ZONE 'UTC'
  ORDER BY i.started_at DESC LIMIT 1)`;

/**
 * A lateral source of the ledger, one row a capsule, its labels and a day, up to the time of a `clock(at)` beside it.
 *
 * @param from SQL of the first day
 * @param to SQL of the last one
 * @param ofWhom condition on the columns of usage_intervals
 */
export function ledgerByDay(from: SQL, to: SQL, ofWhom: SQL): SQL {
  return sql`LATERAL (
    SELECT team_id, days.day::date AS day, capsule_id, labels,
      sum(us * CASE state WHEN 'running' THEN vcpus ELSE 0 END) AS vcpu_us,
      sum(us * CASE state WHEN 'running' THEN memory_mb ELSE (memory_mb + 1) / 2 END) AS memory_mb_us,
      sum(us * disk_mb) AS disk_mb_us
    FROM generate_series(${from}::timestamp, ${to}::timestamp, interval '1 day') AS days(day)
    CROSS JOIN LATERAL (
      SELECT days.day AT TIME ZONE 'UTC' AS starts, (days.day + interval '1 day') AT TIME ZONE 'UTC' AS ends
    ) AS bounds
    JOIN usage_intervals i
      ON i.started_at < least(bounds.ends, clock.at) AND (i.ended_at > bounds.starts OR i.ended_at IS NULL) AND ${ofWhom}
    CROSS JOIN LATERAL (
      SELECT (extract(epoch FROM least(i.ended_at, clock.at, bounds.ends) - greatest(i.started_at, bounds.starts))
        * 1000000)::bigint AS us
    ) AS spent
    WHERE us > 0
    GROUP BY team_id, days.day, capsule_id, labels
  ) AS ledger`;
}
