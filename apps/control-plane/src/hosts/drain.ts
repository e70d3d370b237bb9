import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import { and, count, eq, inArray, isNotNull, isNull, notInArray, sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import type { CapsulesDeps } from '../capsules/capsules.ts';
import { hibernateCapsule, pauseCapsule } from '../capsules/sleep.ts';
import { BUSY } from '../capsules/verdict.ts';
import type { Db } from '../database/database.ts';
import { type HostRow, hosts } from '../database/host-schema.ts';
import { type Capsule, capsules } from '../database/schema.ts';
import type { Jobs } from '../jobs/jobs.ts';
import { auditChange } from './create-host.ts';
import { lockHost } from './host-rows.ts';
import type { HostViewer } from './host-viewer.ts';

const QUEUE = 'drain-hosts';
const CRON = '* * * * *';
/** A round begins nothing more after this long; the next one goes on. */
const ROUND_MS = 50_000;
/** The last of it may be a large memory on its way to a slow object store. */
const DEADLINE_MS = 3_600_000;
/** All of a capsule's memory is written, and read again where it goes to the object store. */
const CAPSULES_AT_ONCE = 4;
/** How often is looked whether what others do to capsules has ended. */
const LOOK_MS = 1000;

export type DrainMode = NonNullable<HostRow['drainMode']>;

/** Has every capsule of a host put to sleep, and lets it have no more. @throws WrennError `host_not_found` */
export async function beginDrain(
  { db, jobs }: { readonly db: Db; readonly jobs: Pick<Jobs, 'enqueue'> },
  viewer: HostViewer,
  id: string,
  mode: DrainMode,
): Promise<void> {
  await db.transaction(async (tx) => {
    const host = await lockHost(tx, viewer, id);
    await tx
      .update(hosts)
      .set({
        drainMode: mode,
        cordonedAt: sql`coalesce(${hosts.cordonedAt}, now())`,
        ...(host.status === 'online' ? { status: 'draining' as const } : {}),
        updatedAt: sql`now()`,
      })
      .where(eq(hosts.id, id));
    if (host.drainMode !== mode) await auditChange(tx, viewer, host, 'drain', { mode });
    await jobs.enqueue(tx, QUEUE, { hostId: id }, { singletonKey: id });
  });
}

/** Stops that; what sleeps sleeps on. The host has new capsules again. @throws WrennError `host_not_found` */
export async function endDrain(db: Db, viewer: HostViewer, id: string): Promise<void> {
  await db.transaction(async (tx) => {
    const host = await lockHost(tx, viewer, id);
    if (host.drainMode === null) return;
    await tx
      .update(hosts)
      .set({
        ...{ drainMode: null, cordonedAt: null, updatedAt: sql`now()` },
        ...(host.status === 'draining' ? { status: 'online' as const } : {}),
      })
      .where(eq(hosts.id, id));
    await auditChange(tx, viewer, host, 'undrain');
  });
}

/** Drains hosts, each by one control plane; what that one leaves another goes on with. */
export function defineDrain(jobs: Jobs, deps: CapsulesDeps, log: Logger): void {
  jobs.define<{ hostId?: string }>(QUEUE, { deadlineMs: DEADLINE_MS, concurrency: 8 }, async ({ hostId }, signal) => {
    if (hostId !== undefined) return drainHost(deps, hostId, signal, log);
    for (const { id } of await listDraining(deps.db)) {
      await deps.db.transaction((tx) => jobs.enqueue(tx, QUEUE, { hostId: id }, { singletonKey: id }));
    }
  });
  jobs.schedule(QUEUE, CRON);
}

/** A host is back: what it was in the middle of goes on at once. */
export async function goOnDraining(
  { db, jobs }: { readonly db: Db; readonly jobs: Pick<Jobs, 'enqueue'> },
  hostId: string,
): Promise<void> {
  if (!(await modeOf(db, hostId))) return;
  await db.transaction((tx) => jobs.enqueue(tx, QUEUE, { hostId }, { singletonKey: hostId }));
}

function listDraining(db: Db): Promise<{ id: string }[]> {
  return db
    .select({ id: hosts.id })
    .from(hosts)
    .where(and(isNotNull(hosts.drainMode), eq(hosts.status, 'draining'), isNull(hosts.deletedAt)));
}

/**
 * One round. Ends early when nothing is left that it could put to sleep; what failed is tried again in the next one.
 * Rounds that overlap share the work.
 */
export async function drainHost(deps: CapsulesDeps, hostId: string, signal: AbortSignal, log: Logger): Promise<void> {
  const failed = new Set<string>();
  const endMs = performance.now() + ROUND_MS;
  while (performance.now() < endMs) {
    signal.throwIfAborted();
    const mode = await modeOf(deps.db, hostId);
    if (!mode) return;
    const busy = await countBusy(deps.db, hostId);
    const room = Math.max(0, CAPSULES_AT_ONCE - busy.fallingAsleep);
    const found = await listToSleep(deps.db, hostId, { mode, limit: room, not: [...failed] });
    if (found.length === 0) {
      if (busy.all === 0) return;
      await delay(LOOK_MS, undefined, { signal });
      continue;
    }
    const ends = await Promise.allSettled(found.map((capsule) => putToSleep(deps, capsule, mode, signal)));
    ends.forEach((end, index) => {
      const { id = '' } = found[index] ?? {};
      // Somebody else was quicker, in whatever they did.
      if (end.status === 'fulfilled' || signal.aborted || isInvalidState(end.reason)) return;
      failed.add(id);
      log.warn({ err: end.reason, host: hostId, capsule: id }, 'a capsule of a host that is drained stays for now');
    });
  }
}

async function putToSleep(deps: CapsulesDeps, capsule: Capsule, mode: DrainMode, signal: AbortSignal): Promise<void> {
  const { id, teamId, status } = capsule;
  const system = { teamId, actor: 'system' };
  if (status === 'running') await pauseCapsule(deps, system, id, undefined, signal);
  if (mode === 'hibernate') await hibernateCapsule(deps, system, id, undefined, signal);
}

async function modeOf(db: Db, hostId: string): Promise<DrainMode | null> {
  const [host] = await db
    .select({ mode: hosts.drainMode, status: hosts.status })
    .from(hosts)
    .where(and(eq(hosts.id, hostId), isNull(hosts.deletedAt)));
  // A silent host is gone on with when it is back.
  return host?.status === 'draining' ? host.mode : null;
}

function isInvalidState(error: unknown): boolean {
  return error instanceof WrennError && error.code === 'invalid_state';
}

function listToSleep(
  db: Db,
  hostId: string,
  { mode, limit, not }: { readonly mode: DrainMode; readonly limit: number; readonly not: readonly string[] },
): Promise<Capsule[]> {
  const states = mode === 'hibernate' ? (['running', 'paused'] as const) : (['running'] as const);
  return db
    .select()
    .from(capsules)
    .where(
      and(
        ...[eq(capsules.hostId, hostId), inArray(capsules.status, [...states])],
        not.length > 0 ? notInArray(capsules.id, [...not]) : undefined,
      ),
    )
    .orderBy(capsules.id)
    .limit(limit);
}

/** How many are on their way to somewhere, and how many of them to sleep. */
async function countBusy(db: Db, hostId: string): Promise<{ all: number; fallingAsleep: number }> {
  const [row] = await db
    .select({
      all: count(),
      fallingAsleep: sql<number>`count(*) FILTER (WHERE ${capsules.status} IN ('pausing', 'hibernating'))::int`,
    })
    .from(capsules)
    .where(and(eq(capsules.hostId, hostId), inArray(capsules.status, [...BUSY])));
  return row ?? { all: 0, fallingAsleep: 0 };
}
