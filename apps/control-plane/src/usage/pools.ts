import { WrennError } from '@wrenn/protocol/errors';
import type { PoolBody, SetPoolRequest } from '@wrenn/protocol/rest/usage';
import { eq, sql } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import { recordAdminAct } from '../admin/admin-audit.ts';
import type { Db } from '../database/database.ts';
import { teamLoad } from '../database/host-schema.ts';
import type { Capsule } from '../database/schema.ts';
import { pools } from '../database/usage-schema.ts';
import { lockTeam, requireLiveTeam } from '../teams/team-store.ts';

/** What capsules take of their team's pool. */
export interface PoolShare {
  readonly vcpus: number;
  readonly memoryMb: number;
  readonly diskMb: number;
}

/** Of a disk whose size the template decides, until the capsule runs; the trigger that counts capsules says the same. */
const DEFAULT_DISK_MB = 1024;

/** What a capsule that runs takes. */
export function shareOf(capsule: Pick<Capsule, 'vcpus' | 'memoryMb' | 'diskMb' | 'diskRequestMb'>): PoolShare {
  const { vcpus, memoryMb, diskMb, diskRequestMb } = capsule;
  return { vcpus, memoryMb, diskMb: diskMb ?? (diskRequestMb || DEFAULT_DISK_MB) };
}

/** What a capsule takes more than now once it is awake: asleep it has its disk, and half of its memory. */
export function shareToWake(capsule: Capsule): PoolShare {
  const whole = shareOf(capsule);
  // One that failed takes nothing until it is tried again.
  if (capsule.status === 'error') return whole;
  return { ...whole, memoryMb: Math.floor(capsule.memoryMb / 2), diskMb: 0 };
}

/** As the API names them, and as people do. */
const RESOURCES = {
  vcpus: { resource: 'vcpus', units: 'vCPUs' },
  memoryMb: { resource: 'memory_mb', units: 'MiB of memory' },
  diskMb: { resource: 'disk_mb', units: 'MiB of disk' },
} as const;

/**
 * Makes sure that what a transaction just put into the pool of a team fits. The change of the capsules holds the team's
 * row of team_load until the transaction ends, so that of several at once each sees what those before it took.
 *
 * @param asked what it put in; where that is nothing of a resource, too much of it is no reason to refuse
 * @throws WrennError `pool_exhausted`
 */
export async function checkPool(tx: Db, teamId: string, asked: PoolShare): Promise<void> {
  const [pool] = await selectPool(tx, teamId);
  if (!pool) return;
  for (const name of ['vcpus', 'memoryMb', 'diskMb'] as const) {
    const limit = pool.limits[name];
    const used = pool.used[name] - asked[name];
    if (limit === null || asked[name] === 0 || pool.used[name] <= limit) continue;
    throw new WrennError('pool_exhausted', {
      ...{ ...RESOURCES[name], limit, used, asked: asked[name] },
      free: Math.max(0, limit - used),
    });
  }
}

/** Of a team that has one. */
function selectPool(db: Db, teamId: string) {
  return db
    .select({
      limits: { vcpus: pools.vcpus, memoryMb: pools.memoryMb, diskMb: pools.diskMb },
      used: usedColumns,
      updatedAt: pools.updatedAt,
    })
    .from(pools)
    .innerJoin(teamLoad, eq(teamLoad.teamId, pools.teamId))
    .where(eq(pools.teamId, teamId));
}

const usedColumns = {
  vcpus: teamLoad.vcpus,
  memoryMb: sql`${teamLoad.memoryMb} + ${teamLoad.asleepHalfMemoryMb}`.mapWith(Number),
  diskMb: teamLoad.diskMb,
};

/** What a team has bought, and what it uses of it now. */
export async function readPool(db: Db, teamId: string): Promise<PoolBody> {
  const [used] = await db.select(usedColumns).from(teamLoad).where(eq(teamLoad.teamId, teamId));
  const [pool] = await db.select().from(pools).where(eq(pools.teamId, teamId));
  const { vcpus = 0, memoryMb = 0, diskMb = 0 } = used ?? {};
  return {
    team_id: teamId,
    limits: { vcpus: pool?.vcpus ?? null, memory_mb: pool?.memoryMb ?? null, disk_mb: pool?.diskMb ?? null },
    used: { vcpus, memory_mb: memoryMb, disk_mb: diskMb },
    updated_at: pool?.updatedAt.toISOString() ?? null,
  };
}

/** The same for an administrator. @throws WrennError `not_found` */
export async function readAnyPool(db: Db, teamId: string): Promise<PoolBody> {
  await requireLiveTeam(db, teamId);
  return readPool(db, teamId);
}

/**
 * Says how much a team may use. Nothing happens to capsules that use more already; none starts until they use less.
 *
 * @throws WrennError `not_found`
 */
export async function setPool(db: Db, teamId: string, limits: SetPoolRequest, actor: Actor): Promise<PoolBody> {
  return db.transaction(async (tx) => {
    const { name } = await lockTeam(tx, teamId);
    const { limits: before } = await readPool(tx, teamId);
    const { vcpus, memory_mb: memoryMb, disk_mb: diskMb } = limits;
    const values = { vcpus, memoryMb, diskMb, updatedAt: sql`now()` };
    await tx
      .insert(pools)
      .values({ teamId, ...values })
      .onConflictDoUpdate({ target: pools.teamId, set: values });
    await recordAdminAct(tx, {
      ...{ actor, resource: 'team', id: teamId, action: 'set_pool' },
      metadata: { name, before, limits },
    });
    return readPool(tx, teamId);
  });
}
