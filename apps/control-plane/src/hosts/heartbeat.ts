import { WrennError } from '@wrenn/protocol/errors';
import type { Heartbeat, HeartbeatAnswer } from '@wrenn/protocol/rest/hosts';
import { and, eq, isNull, sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { hosts } from '../database/host-schema.ts';
import type { ControlPlanes } from './control-planes.ts';
import type { HostPool } from './host-pool.ts';
import { recordHostUp } from './host-store.ts';

/** A certificate is renewed when less than this is left of it. */
const RENEW_BEFORE_MS = 7 * 24 * 3_600_000;

type Samples = Heartbeat['samples'];

export interface HeartbeatDeps {
  readonly db: Db;
  readonly pool: Pick<HostPool, 'get' | 'eventsOf' | 'nudge' | 'changed'>;
  readonly controlPlanes: Pick<ControlPlanes, 'list'>;
  /** Keeps what the host measured. */
  readonly storeSamples?: (db: Db, hostId: string, samples: Samples) => Promise<void>;
  readonly log: Logger;
}

/**
 * Takes down that a host lives and what it says of itself, and compares what it has with its capsules. Costs as much as
 * the host has capsules, however many others there are.
 *
 * @throws WrennError `host_deleted`
 */
export async function recordHeartbeat(
  deps: HeartbeatDeps,
  hostId: string,
  heartbeat: Heartbeat,
): Promise<HeartbeatAnswer> {
  const { db, pool, controlPlanes } = deps;
  const before = await recordFacts(db, hostId, heartbeat);
  // One whose agent does not fit answers, and is of no use nevertheless.
  const isNews = before.problem === null && (before.status === 'unreachable' || before.status === 'pending');
  if (isNews) await db.transaction((tx) => recordHostUp(tx, hostId));
  const host = pool.get(hostId);
  if (!host) pool.changed();
  else if (!host.online) pool.nudge(hostId);
  await compare(deps, hostId, heartbeat, before.unknownVms);
  if (heartbeat.samples.length > 0) await deps.storeSamples?.(db, hostId, heartbeat.samples);
  const restMs = (before.certExpiresAt?.getTime() ?? Number.POSITIVE_INFINITY) - Date.now();
  return {
    status: isNews ? (before.drainMode === null ? 'online' : 'draining') : before.status,
    renew: restMs < RENEW_BEFORE_MS,
    control_planes: await controlPlanes.list(),
  };
}

async function recordFacts(db: Db, hostId: string, heartbeat: Heartbeat) {
  const [row] = await db
    .update(hosts)
    .set({
      ...{ agentVersion: heartbeat.agent_version, cpuCount: heartbeat.cpu_cores, templates: heartbeat.templates },
      ...{ memoryMb: heartbeat.memory_mb, memoryFreeMb: heartbeat.memory_free_mb },
      ...{ diskMb: heartbeat.disk_mb, diskFreeMb: heartbeat.disk_free_mb },
      lastHeartbeatAt: sql`now()`,
      updatedAt: sql`now()`,
    })
    .where(and(eq(hosts.id, hostId), isNull(hosts.deletedAt)))
    .returning({
      ...{ status: hosts.status, problem: hosts.problem, drainMode: hosts.drainMode },
      ...{ certExpiresAt: hosts.certExpiresAt, unknownVms: hosts.unknownVms },
    });
  if (!row) throw new WrennError('host_deleted', { id: hostId });
  return row;
}

/** Its capsules are looked at where their host can be asked; what a heartbeat says may be of some moments ago. */
async function compare(deps: HeartbeatDeps, hostId: string, { vms }: Heartbeat, unknownBefore: number): Promise<void> {
  const { db, pool, log } = deps;
  try {
    const unknownVms = await pool.eventsOf(hostId)?.onInventory(vms);
    if (unknownVms === undefined || unknownVms === unknownBefore) return;
    await db.update(hosts).set({ unknownVms }).where(eq(hosts.id, hostId));
  } catch (err) {
    // It is alive, whatever it has; the next one is compared again.
    log.warn({ err, host: hostId }, 'could not compare what a host has with its capsules');
  }
}
