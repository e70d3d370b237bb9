import { WrennError } from '@wrenn/protocol/errors';
import type { capsuleMetricsSchema, METRICS_RANGES } from '@wrenn/protocol/rest/team-metrics';
import { and, eq, gt, lte, sql } from 'drizzle-orm';
import type { z } from 'zod';
import type { Db } from '../database/database.ts';
import { hosts } from '../database/host-schema.ts';
import { capsuleCounters, capsulePoints, type METRIC_TIERS } from '../database/metrics-schema.ts';
import type { Capsule } from '../database/schema.ts';
import type { Host } from '../hosts/host.ts';
import type { HostSample } from './store-samples.ts';

export type MetricsRange = (typeof METRICS_RANGES)[number];
export type CapsuleMetrics = z.output<typeof capsuleMetricsSchema>;
type Point = CapsuleMetrics['points'][number];
type Tier = (typeof METRIC_TIERS)[number];

const RANGES: Record<MetricsRange, { readonly spanS: number; readonly tier: Tier }> = {
  '5m': { spanS: 300, tier: '10m' },
  '10m': { spanS: 600, tier: '10m' },
  '1h': { spanS: 3600, tier: '2h' },
  '2h': { spanS: 7200, tier: '2h' },
  '6h': { spanS: 6 * 3600, tier: '24h' },
  '12h': { spanS: 12 * 3600, tier: '24h' },
  '24h': { spanS: 24 * 3600, tier: '24h' },
};
const LIVE_STEP_S = 10;
/** A chart does not wait for a host that is slow: it shows what came with its last heartbeat. */
const LIVE_TIMEOUT_MS = 2000;

/** Where the newest measurements of a capsule that runs can be asked for. */
export type LiveHost = Pick<Host, 'id' | 'online' | 'readStats'>;

/**
 * The points of a capsule in any state. The finest ones of a capsule that runs are completed by what its host has
 * measured since it last told.
 */
export async function readCapsuleMetrics(
  db: Db,
  capsule: Capsule,
  host: LiveHost | undefined,
  range: MetricsRange,
  { now, signal }: { readonly now: Date; readonly signal: AbortSignal },
): Promise<CapsuleMetrics> {
  const { spanS, tier } = RANGES[range];
  const from = new Date(now.getTime() - spanS * 1000);
  const stored = await readStored(db, capsule.id, tier, from, now);
  const wantsLive = tier === '10m' && capsule.status === 'running' && host?.online;
  const live = wantsLive ? await readLive(db, capsule.id, host, signal) : [];
  const points = merge(stored, live).filter(({ timestamp_unix }) => timestamp_unix * 1000 > from.getTime());
  return { sandbox_id: capsule.id, range, points };
}

async function readStored(db: Db, capsuleId: string, tier: Tier, from: Date, to: Date): Promise<Point[]> {
  const { at, cpuPct, memoryBytes, diskBytes, netRxBytes, netTxBytes } = capsulePoints;
  return db
    .select({
      timestamp_unix: sql<number>`extract(epoch FROM ${at})::float8`,
      cpu_pct: cpuPct,
      mem_bytes: memoryBytes,
      disk_bytes: diskBytes,
      net_rx_bytes: netRxBytes,
      net_tx_bytes: netTxBytes,
    })
    .from(capsulePoints)
    .where(and(eq(capsulePoints.capsuleId, capsuleId), eq(capsulePoints.tier, tier), gt(at, from), lte(at, to)))
    .orderBy(at);
}

/** What the host has measured since what is stored; nothing where it does not answer, or has no such verb. */
async function readLive(db: Db, capsuleId: string, host: LiveHost, signal: AbortSignal): Promise<Point[]> {
  const [known] = await db.select().from(capsuleCounters).where(eq(capsuleCounters.capsuleId, capsuleId));
  const [clock] = await db.select({ offsetMs: hosts.clockOffsetMs }).from(hosts).where(eq(hosts.id, host.id));
  try {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(LIVE_TIMEOUT_MS)]);
    const samples = await host.readStats({ id: capsuleId, since: known?.sampledAt }, deadline);
    const aheadS = Math.round((clock?.offsetMs ?? 0) / 1000 / LIVE_STEP_S) * LIVE_STEP_S;
    return toPoints(samples, known).map((point) => ({ ...point, timestamp_unix: point.timestamp_unix - aheadS }));
  } catch (error) {
    if (error instanceof WrennError || signal.aborted || (error as Error).name === 'TimeoutError') return [];
    throw error;
  }
}

/** Counters of the network as they stood at a time. */
type Counters = Pick<typeof capsuleCounters.$inferSelect, 'countedFrom' | 'netRxBytes' | 'netTxBytes'>;

/** Points of samples that are in order, whose network counts from what is known of the same run of the VM. */
export function toPoints(samples: readonly HostSample[], known: Counters | undefined): Point[] {
  const points = new Map<number, { point: Point; samples: number }>();
  let before = known;
  for (const sample of samples) {
    const countedFrom = new Date(sample.counted_from ?? 0);
    const base = before?.countedFrom.getTime() === countedFrom.getTime() ? before : undefined;
    const rx = sample.net_rx_bytes - (base?.netRxBytes ?? 0);
    const tx = sample.net_tx_bytes - (base?.netTxBytes ?? 0);
    before = { countedFrom, netRxBytes: sample.net_rx_bytes, netTxBytes: sample.net_tx_bytes };
    const at = Math.floor(new Date(sample.at).getTime() / 1000 / LIVE_STEP_S) * LIVE_STEP_S;
    const found = points.get(at);
    const count = found?.samples ?? 0;
    const mean = (old: number | undefined, value: number) => ((old ?? 0) * count + value) / (count + 1);
    const point = {
      timestamp_unix: at,
      cpu_pct: mean(found?.point.cpu_pct, sample.cpu_pct),
      mem_bytes: Math.round(mean(found?.point.mem_bytes, sample.memory_bytes)),
      disk_bytes: Math.round(mean(found?.point.disk_bytes, sample.disk_bytes)),
      net_rx_bytes: (found?.point.net_rx_bytes ?? 0) + Math.max(rx, 0),
      net_tx_bytes: (found?.point.net_tx_bytes ?? 0) + Math.max(tx, 0),
    };
    points.set(at, { point, samples: count + 1 });
  }
  return [...points.values()].map(({ point }) => point);
}

/** Stored points with the live ones: where both have one, the live one is newer, and the network is of both. */
function merge(stored: readonly Point[], live: readonly Point[]): Point[] {
  const all = new Map(stored.map((point) => [point.timestamp_unix, point]));
  for (const point of live) {
    const known = all.get(point.timestamp_unix);
    all.set(point.timestamp_unix, {
      ...point,
      net_rx_bytes: point.net_rx_bytes + (known?.net_rx_bytes ?? 0),
      net_tx_bytes: point.net_tx_bytes + (known?.net_tx_bytes ?? 0),
    });
  }
  return [...all.values()].sort((a, b) => a.timestamp_unix - b.timestamp_unix);
}
