import { and, eq, getTableColumns, inArray, isNotNull, notExists, notInArray, or, sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import { recordCapsuleNews } from '../audit/operation-entries.ts';
import type { Db } from '../database/database.ts';
import { hosts } from '../database/host-schema.ts';
import { type Capsule, capsules, operations } from '../database/schema.ts';
import type { HostPool } from '../hosts/host-pool.ts';
import type { Jobs } from '../jobs/jobs.ts';
import { transitionWhen } from './transition.ts';
import { BUSY, LEFT_BEHIND } from './verdict.ts';
import { followHost } from './vm-facts.ts';
import { endsWithHost, endWithoutHost } from './without-host.ts';

const QUEUE = 'settle-capsules';
const CRON = '* * * * *';
const DEADLINE_MS = 50_000;
/** An operation is written in the transaction that makes its capsule busy, and ends in one soon after the capsule's. */
const GRACE_S = 30;
const AT_ONCE = 500;

export interface LeftBehindDeps {
  readonly db: Db;
  readonly pool: Pick<HostPool, 'get' | 'eventsOf'>;
  readonly destroy: (capsule: Capsule) => Promise<void>;
  readonly log: Logger;
}

/**
 * Has capsules settled that are in the middle of something that nobody does any more, or on a host that was deleted, by
 * whichever control plane.
 */
export function defineLeftBehind(jobs: Jobs, deps: LeftBehindDeps): void {
  jobs.define(QUEUE, { deadlineMs: DEADLINE_MS }, async (_data, signal) => {
    const count = await settleLeftBehind(deps, signal);
    if (count > 0) deps.log.warn({ count }, 'capsules were left in the middle of an operation, or on a deleted host');
  });
  jobs.schedule(QUEUE, CRON);
}

/**
 * Settles each through its host. Those of a host that does not answer wait for it: what became of them only it knows.
 *
 * @returns how many were found
 */
export async function settleLeftBehind(deps: LeftBehindDeps, signal: AbortSignal, graceS = GRACE_S): Promise<number> {
  const found = [...(await listLeftBehind(deps.db, graceS)), ...(await listOnDeletedHosts(deps.db))];
  for (const capsule of found) {
    signal.throwIfAborted();
    try {
      await settle(deps, capsule);
    } catch (err) {
      deps.log.warn({ err, capsule: capsule.id }, 'could not settle a capsule');
    }
  }
  return found.length;
}

async function settle({ db, pool, destroy }: LeftBehindDeps, capsule: Capsule): Promise<void> {
  const { id, status, hostId } = capsule;
  if (!BUSY.includes(status)) return db.transaction((tx) => endWithoutHost(tx, capsule));
  if (status === 'stopping') return destroy(capsule);
  if (status === 'pending') return fail(db, capsule);
  const host = pool.get(hostId);
  if (host?.online) return pool.eventsOf(hostId)?.onLeftBehind(id);
  if (host) return;
  // Its host was deleted.
  await db.transaction(async (tx) => {
    const moved = await followHost(tx, capsule, undefined, LEFT_BEHIND);
    if (moved) await recordCapsuleNews(tx, status, moved);
  });
}

/** No host was asked for it yet. */
async function fail(db: Db, { id }: Capsule): Promise<void> {
  await db.transaction(async (tx) => {
    const isPending = ({ status }: Capsule) => status === 'pending';
    const failed = await transitionWhen(tx, id, isPending, 'error', { statusReason: LEFT_BEHIND });
    if (failed) await recordCapsuleNews(tx, 'pending', failed);
  });
}

/** A create or a resume may choose a host in the very moment in which it is deleted. */
function listOnDeletedHosts(db: Db): Promise<Capsule[]> {
  return db
    .select(getTableColumns(capsules))
    .from(capsules)
    .innerJoin(hosts, and(eq(hosts.id, capsules.hostId), isNotNull(hosts.deletedAt)))
    .where(and(endsWithHost, notInArray(capsules.status, [...BUSY])))
    .limit(AT_ONCE);
}

function listLeftBehind(db: Db, graceS: number): Promise<Capsule[]> {
  const isAtWork = and(
    sql`${operations.state} = 'running'`,
    or(
      sql`${operations.capsuleId} = ${capsules.id}`,
      sql`(${operations.capsuleId} = ${capsules.forkedFrom} AND ${operations.kind} = 'capsule.fork'
        AND ${operations.args} @> jsonb_build_object('children', jsonb_build_array(${capsules.id})))`,
    ),
  );
  return db
    .select()
    .from(capsules)
    .where(
      and(
        inArray(capsules.status, [...BUSY]),
        sql`${capsules.updatedAt} < now() - make_interval(secs => ${graceS}::float8)`,
        notExists(db.select({ one: sql`1` }).from(operations).where(isAtWork)),
      ),
    )
    .orderBy(capsules.updatedAt)
    .limit(AT_ONCE);
}
