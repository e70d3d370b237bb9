import type { Heartbeat } from '@wrenn/protocol/rest/hosts';
import { sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';

export type HostSample = Heartbeat['samples'][number];

/** First of the two keys of an advisory lock; the second is the host. Only must not be used for something else. */
const LOCK = 736_651_042;
/** A clock that is further off than this shifts what the host measured, by a multiple of the finest point. */
const POINT_S = 10;

/**
 * Adds what a host measured to the points of its capsules and to their egress. A measurement counts once, however often
 * it comes and through however many control planes; one of a VM that is not of this host's capsules counts nothing.
 */
export async function storeSamples(db: Db, hostId: string, samples: readonly HostSample[]): Promise<void> {
  if (samples.length === 0) return;
  await db.transaction(async (tx) => {
    // What is new is told by the counters: nobody may read them while another adds to them.
    await tx.execute(sql`SELECT pg_advisory_xact_lock(${LOCK}, hashtext(${hostId}))`);
    await tx.execute(addSamples(hostId, JSON.stringify(samples)));
  });
}

/**
 * `counted` are the measurements that are new, each with what the network carried since the one before. Counters begin
 * at zero with each start of a VM, which `counted_from` names; an agent that leaves it out is believed when they fall.
 */
function addSamples(hostId: string, samples: string) {
  return sql`
    WITH came AS (
      SELECT DISTINCT ON (s.id, s.at) s.*, c.team_id
      FROM jsonb_to_recordset(${samples}::jsonb) AS s (
        id text, at timestamptz, counted_from timestamptz, cpu_pct float8, memory_bytes bigint, disk_bytes bigint,
        net_rx_bytes bigint, net_tx_bytes bigint
      )
      JOIN capsules c ON c.id = s.id AND c.host_id = ${hostId}
    ), run AS (
      SELECT came.*, k.sampled_at AS known_at, k.counted_from AS known_from, k.net_rx_bytes AS known_rx,
        k.net_tx_bytes AS known_tx,
        coalesce(came.counted_from, k.counted_from, '-infinity') AS run_from
      FROM came LEFT JOIN capsule_counters k ON k.capsule_id = came.id
    ), fresh AS (
      SELECT * FROM run
      WHERE known_at IS NULL OR run_from > known_from OR (run_from = known_from AND at > known_at)
    ), counted AS (
      SELECT id, team_id, at, run_from, cpu_pct, memory_bytes, disk_bytes, net_rx_bytes, net_tx_bytes,
        net_rx_bytes - CASE WHEN before_rx <= net_rx_bytes THEN before_rx ELSE 0 END AS rx,
        net_tx_bytes - CASE WHEN before_tx <= net_tx_bytes THEN before_tx ELSE 0 END AS tx
      FROM (
        SELECT *,
          coalesce(lag(net_rx_bytes) OVER w, CASE WHEN run_from = known_from THEN known_rx END, 0) AS before_rx,
          coalesce(lag(net_tx_bytes) OVER w, CASE WHEN run_from = known_from THEN known_tx END, 0) AS before_tx
        FROM fresh WINDOW w AS (PARTITION BY id, run_from ORDER BY at)
      ) AS ordered
    ), clock AS (
      SELECT round(coalesce(max(clock_offset_ms), 0) / ${POINT_S * 1000}::numeric) * ${POINT_S}::int * interval '1 second'
        AS ahead FROM hosts WHERE id = ${hostId}
    ), points AS (
      INSERT INTO capsule_points AS p
        (capsule_id, tier, at, cpu_pct, memory_bytes, disk_bytes, net_rx_bytes, net_tx_bytes, samples)
      SELECT id, tier, date_bin(step, at - ahead, '2000-01-01T00:00:00Z') AS bin, avg(cpu_pct), avg(memory_bytes),
        avg(disk_bytes), sum(rx), sum(tx), count(*)
      FROM counted, clock, (VALUES ('10m', interval '10 seconds'), ('2h', interval '30 seconds'),
        ('24h', interval '5 minutes')) AS tiers (tier, step)
      GROUP BY id, tier, bin
      ON CONFLICT (capsule_id, tier, at) DO UPDATE SET
        cpu_pct = (p.cpu_pct * p.samples + excluded.cpu_pct * excluded.samples) / (p.samples + excluded.samples),
        memory_bytes =
          (p.memory_bytes * p.samples + excluded.memory_bytes * excluded.samples) / (p.samples + excluded.samples),
        disk_bytes =
          (p.disk_bytes * p.samples + excluded.disk_bytes * excluded.samples) / (p.samples + excluded.samples),
        net_rx_bytes = p.net_rx_bytes + excluded.net_rx_bytes,
        net_tx_bytes = p.net_tx_bytes + excluded.net_tx_bytes,
        samples = p.samples + excluded.samples
    ), egress AS (
      INSERT INTO capsule_egress AS e (capsule_id, team_id, day, bytes)
      SELECT id, team_id, ((at - ahead) AT TIME ZONE 'UTC')::date AS day, sum(tx) FROM counted, clock
      GROUP BY id, team_id, day HAVING sum(tx) > 0
      ON CONFLICT (capsule_id, day) DO UPDATE SET bytes = e.bytes + excluded.bytes
    )
    INSERT INTO capsule_counters AS k (capsule_id, counted_from, sampled_at, net_rx_bytes, net_tx_bytes)
    SELECT DISTINCT ON (id) id, run_from, at, net_rx_bytes, net_tx_bytes FROM counted ORDER BY id, run_from DESC, at DESC
    ON CONFLICT (capsule_id) DO UPDATE SET
      counted_from = excluded.counted_from, sampled_at = excluded.sampled_at,
      net_rx_bytes = excluded.net_rx_bytes, net_tx_bytes = excluded.net_tx_bytes`;
}
