import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import { and, eq, inArray, isNull, ne, sql } from 'drizzle-orm';
import { type CapsulesDeps, destroyAsSystem, hostById } from '../capsules/capsules.ts';
import { endsWithHost, endWithoutHost } from '../capsules/without-host.ts';
import type { Db } from '../database/database.ts';
import { hosts } from '../database/host-schema.ts';
import { type Capsule, capsules, snapshots } from '../database/schema.ts';
import { revokeTokens } from '../tokens/one-time-tokens.ts';
import { auditChange } from './create-host.ts';
import type { HostDetails } from './host-body.ts';
import { endCredentials } from './host-credentials.ts';
import { getHost, lockHost } from './host-rows.ts';
import { publishHost } from './host-store.ts';
import type { HostViewer } from './host-viewer.ts';

/** How long capsules of a host that is deleted by force may take to end on it. */
const END_MS = 30_000;
const LOOK_MS = 200;
/** As many ids go into a refusal. */
const NAMED_IN_REFUSAL = 50;

/** What would be lost with a host. */
export interface DeletePreview {
  readonly host: HostDetails;
  readonly capsules: readonly Pick<Capsule, 'id' | 'status'>[];
  /** Names of snapshots. */
  readonly snapshots: readonly string[];
}

/** @throws WrennError `host_not_found` */
export async function previewDelete(db: Db, viewer: HostViewer, id: string): Promise<DeletePreview> {
  const host = await getHost(db, viewer, id);
  const kept = await db
    .select({ name: snapshots.name })
    .from(snapshots)
    .where(and(eq(snapshots.hostId, id), ne(snapshots.status, 'deleting'), isNull(snapshots.objectKey)))
    .orderBy(snapshots.name);
  return { host, capsules: await selectBound(db, id), snapshots: kept.map(({ name }) => name) };
}

/**
 * Takes a host out of the platform, for good. Its agent is told so by its next heartbeat, and what is on its disk stays
 * until its operator removes it.
 *
 * @param force capsules that it has end with it, those that sleep on it too
 * @throws WrennError `host_not_found`; `has_active_sandboxes` without force
 */
export async function deleteHost(
  deps: CapsulesDeps,
  viewer: HostViewer,
  id: string,
  { force }: { readonly force: boolean },
  signal: AbortSignal,
): Promise<void> {
  const { db } = deps;
  if (force) {
    await cordon(db, viewer, id);
    if (hostById(deps, id)?.online) await endOnHost(deps, id, signal);
  }
  await db.transaction(async (tx) => {
    const host = await lockHost(tx, viewer, id);
    // All before any is changed: whoever else changes one locks it first, and then what is counted of its host.
    const bound = await selectBound(tx, id).for('no key update');
    if (bound.length > 0 && !force) throw refusal(id, bound);
    for (const capsule of byTeam(bound)) await endWithoutHost(tx, capsule);
    // Those in the object store are for other hosts still.
    await tx.delete(snapshots).where(and(eq(snapshots.hostId, id), isNull(snapshots.objectKey)));
    await endCredentials(tx, id);
    await revokeTokens(tx, 'host_registration', id);
    await tx
      .update(hosts)
      .set({ status: 'deleted', drainMode: null, deletedAt: sql`now()`, updatedAt: sql`now()` })
      .where(eq(hosts.id, id));
    const { status: from } = host;
    if (from === 'online' || from === 'draining')
      await publishHost(tx, 'host.down', host, viewer.actor, { from, to: 'deleted' });
    await auditChange(tx, viewer, host, 'delete', { force, capsules: bound.length });
  });
  deps.leftovers.nudge();
}

/** Capsules that would be lost. */
function selectBound(db: Db, hostId: string) {
  return db
    .select()
    .from(capsules)
    .where(and(eq(capsules.hostId, hostId), endsWithHost))
    .orderBy(capsules.id);
}

/** In one order, so that two hosts that are deleted do not wait for each other with what is counted of teams. */
function byTeam(bound: readonly Capsule[]): Capsule[] {
  return bound.toSorted((a, b) => Number(a.teamId > b.teamId) - Number(a.teamId < b.teamId));
}

function refusal(id: string, bound: readonly Capsule[]): WrennError {
  const named = bound.slice(0, NAMED_IN_REFUSAL).map((capsule) => capsule.id);
  return new WrennError('has_active_sandboxes', { id, count: bound.length, sandbox_ids: named.join(',') });
}

async function cordon(db: Db, viewer: HostViewer, id: string): Promise<void> {
  await db.transaction(async (tx) => {
    await lockHost(tx, viewer, id);
    await tx
      .update(hosts)
      .set({ cordonedAt: sql`coalesce(${hosts.cordonedAt}, now())` })
      .where(eq(hosts.id, id));
  });
}

/** Ends what it has, with its help, for as long as that may take. */
async function endOnHost(deps: CapsulesDeps, hostId: string, signal: AbortSignal): Promise<void> {
  const bound = await selectBound(deps.db, hostId);
  // Each takes its time, and the next ones may have left the host meanwhile.
  const isStillThere = (_tx: Db, now: Capsule) => now.hostId === hostId && now.status !== 'hibernated';
  for (const capsule of bound) await destroyAsSystem(deps, capsule, isStillThere);
  const ids = bound.map(({ id }) => id);
  const until = performance.now() + END_MS;
  while (ids.length > 0 && performance.now() < until && hostById(deps, hostId)?.online) {
    const left = await deps.db
      .select({ id: capsules.id })
      .from(capsules)
      .where(and(inArray(capsules.id, ids), eq(capsules.hostId, hostId), endsWithHost))
      .limit(1);
    if (left.length === 0) return;
    await delay(LOOK_MS, undefined, { signal });
  }
}
