import type { HelloResponse } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { newId } from '@wrenn/protocol/ids';
import { and, eq, inArray, isNull, sql } from 'drizzle-orm';
import { type Actor, SYSTEM } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import { type HostRow, hosts } from '../database/host-schema.ts';
import { publishEvent } from '../events/publish.ts';
import { PLATFORM_TEAM_ID } from '../teams/platform-team.ts';
import { architectureOf } from './architecture.ts';
import type { Host } from './host.ts';

/** What a host is measured to be, by itself. */
export type HostFacts = Partial<
  Pick<
    HostRow,
    | 'agentVersion'
    | 'arch'
    | 'cpuCount'
    | 'memoryMb'
    | 'diskMb'
    | 'diskFreeMb'
    | 'hypervisor'
    | 'hypervisorVersion'
    | 'accelerator'
    | 'kernelVersion'
    | 'cpu'
    | 'objectStore'
    | 'templates'
  >
>;

/** The id of the host at this address; its row is made at the first call. */
export async function ensureHostRow(db: Db, address: string): Promise<string> {
  const [made] = await db
    .insert(hosts)
    .values({ id: newId('host'), address, status: 'pending' })
    .onConflictDoUpdate({
      target: hosts.address,
      targetWhere: sql`address IS NOT NULL AND deleted_at IS NULL`,
      set: { address },
    })
    .returning({ id: hosts.id });
  if (!made) throw new Error('INSERT gave no row');
  return made.id;
}

/** The agent answered with a version that fits. */
export async function recordHostConnected(db: Db, id: string, facts: HelloResponse): Promise<void> {
  const known: HostFacts = {
    agentVersion: facts.agentVersion,
    arch: architectureOf(facts.arch) ?? facts.arch,
    cpuCount: facts.cpuCount,
    memoryMb: Number(facts.memoryMb),
    // 0: an agent that does not say.
    ...(facts.diskMb > 0n ? { diskMb: Number(facts.diskMb), diskFreeMb: Number(facts.diskFreeMb) } : {}),
    hypervisor: facts.hypervisor,
    hypervisorVersion: facts.hypervisorVersion,
    accelerator: facts.accelerator,
    kernelVersion: facts.kernelVersion,
    ...(facts.cpu ? { cpu: facts.cpu } : {}),
    // Empty: the store does not answer right now.
    ...(facts.objectStore ? { objectStore: facts.objectStore } : {}),
    templates: facts.templates.map(({ name }) => name),
  };
  await db.transaction(async (tx) => {
    await recordHostUp(tx, id);
    await tx
      .update(hosts)
      .set({ ...known, problem: null, lastSeenAt: sql`now()`, updatedAt: sql`now()` })
      .where(eq(hosts.id, id));
  });
}

/** All that the host has was compared with its capsules. */
export async function recordHostHeard(db: Db, id: string): Promise<void> {
  await db.transaction(async (tx) => {
    await recordHostUp(tx, id);
    await tx.update(hosts).set({ lastSeenAt: sql`now()` }).where(eq(hosts.id, id));
  });
}

/**
 * A host is there: of several that notice it one records it.
 *
 * @returns whether it was not there before
 */
export async function recordHostUp(tx: Db, id: string): Promise<boolean> {
  const [row] = await tx
    .select({ status: hosts.status, drainMode: hosts.drainMode, teamId: hosts.teamId })
    .from(hosts)
    .where(and(eq(hosts.id, id), isNull(hosts.deletedAt)))
    .for('update');
  if (!row || (row.status !== 'pending' && row.status !== 'unreachable')) return false;
  const to = row.drainMode === null ? 'online' : 'draining';
  await tx.update(hosts).set({ status: to, updatedAt: sql`now()` }).where(eq(hosts.id, id));
  await tell(tx, 'host.up', { id, teamId: row.teamId, from: row.status, to });
  return true;
}

/** Writes down when hosts were last known to be there, as far as this control plane knows. */
export async function recordLastHeard(
  db: Db,
  heard: readonly Pick<Host, 'id' | 'heardMs'>[],
  unlessWithinMs = 0,
): Promise<void> {
  const nowMs = performance.now();
  const ages = heard.flatMap(({ id, heardMs }) =>
    heardMs === undefined ? [] : [{ id, age_s: (nowMs - heardMs) / 1000 }],
  );
  if (ages.length === 0) return;
  // Locked in the order of ids: every control plane does this for many of the same hosts.
  await db.execute(sql`
    WITH locked AS (
      SELECT hosts.id, heard.age_s FROM hosts
      JOIN json_to_recordset(${JSON.stringify(ages)}::json) AS heard (id text, age_s float8) ON hosts.id = heard.id
      WHERE (greatest(last_seen_at, last_heartbeat_at)
        < now() - make_interval(secs => ${unlessWithinMs / 1000}::float8)) IS NOT FALSE
      ORDER BY hosts.id FOR NO KEY UPDATE OF hosts
    )
    UPDATE hosts SET last_seen_at = greatest(last_seen_at, now() - make_interval(secs => locked.age_s))
    FROM locked WHERE hosts.id = locked.id`);
}

/**
 * A host was not heard of for too long: of several that notice it one records it.
 *
 * @param silenceMs how long it must have been silent, by the clock of the database
 * @returns whether it was there before
 */
export async function recordHostDown(db: Db, id: string, silenceMs: number): Promise<boolean> {
  return db.transaction(async (tx) => {
    const [down] = await tx
      .update(hosts)
      .set({ status: 'unreachable', updatedAt: sql`now()` })
      .where(and(eq(hosts.id, id), isThere, isSilentFor(silenceMs)))
      .returning({ teamId: hosts.teamId, drainMode: hosts.drainMode });
    if (!down) return false;
    const from = down.drainMode === null ? 'online' : 'draining';
    await tell(tx, 'host.down', { id, teamId: down.teamId, from, to: 'unreachable' });
    return true;
  });
}

/** Why a host that answers is of no use. Until its agent fits it is not online. */
export async function recordHostProblem(db: Db, id: string, problem: string): Promise<void> {
  await db.transaction(async (tx) => {
    const [before] = await tx
      .select({ status: hosts.status, teamId: hosts.teamId })
      .from(hosts)
      .where(and(eq(hosts.id, id), isNull(hosts.deletedAt)))
      .for('update');
    if (!before) return;
    await tx.update(hosts).set({ problem, status: 'unreachable', updatedAt: sql`now()` }).where(eq(hosts.id, id));
    if (before.status === 'unreachable') return;
    await tell(tx, 'host.down', { id, teamId: before.teamId, from: before.status, to: 'unreachable', problem });
  });
}

/** Hosts that count as there. */
export const isThere = and(inArray(hosts.status, ['online', 'draining']), isNull(hosts.deletedAt));

/** Of rows of hosts: neither a heartbeat nor an open stream of events was seen for so long. */
export function isSilentFor(silenceMs: number) {
  const heardAt = sql`greatest(${hosts.lastSeenAt}, ${hosts.lastHeartbeatAt}, ${hosts.createdAt})`;
  return sql`${heardAt} < now() - make_interval(secs => ${silenceMs / 1000}::float8)`;
}

interface HostNews {
  readonly id: string;
  readonly teamId: string | null;
  readonly from: string;
  readonly to: string;
  readonly problem?: string;
}

/** A team hears of its own hosts, the platform of the others. */
async function tell(tx: Db, type: 'host.up' | 'host.down', { id, teamId, ...metadata }: HostNews): Promise<void> {
  await recordAudit(tx, {
    teamId: teamId ?? undefined,
    actor: SYSTEM,
    resourceType: 'host',
    resourceId: id,
    action: metadata.to,
    scope: teamId === null ? 'platform' : 'team',
    status: type === 'host.down' ? 'warning' : 'info',
    metadata,
  });
  await publishHost(tx, type, { id, teamId }, SYSTEM, metadata);
}

/** Tells the channels of a host's team, or those of the platform, whose hosts the others are. */
export async function publishHost(
  tx: Db,
  type: 'host.up' | 'host.down',
  { id, teamId }: Pick<HostRow, 'id' | 'teamId'>,
  actor: Actor,
  data: Record<string, unknown>,
): Promise<void> {
  const resource = { type: 'host', id };
  await publishEvent(tx, { type, teamId: teamId ?? PLATFORM_TEAM_ID, actor, resource, data });
}
