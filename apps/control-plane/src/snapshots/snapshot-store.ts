import type { ArrayQuery } from '@wrenn/protocol/rest/paging';
import { and, desc, eq, getTableColumns, inArray, or, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { operations, type Snapshot, snapshots } from '../database/schema.ts';
import { comesAfter, type Page, pageOf, positionAt } from '../http/cursor.ts';
import { PLATFORM_TEAM_ID } from '../teams/platform-team.ts';
import { requireLiveTeam } from '../teams/team-store.ts';

/** Unique index on (team_id, name). */
export const SNAPSHOT_NAME_INDEX = 'snapshots_name';

export type NewSnapshot = Omit<typeof snapshots.$inferInsert, 'status' | 'sizeBytes' | 'createdAt'>;

/** @throws WrennError `not_found` when the team is deleted */
export async function insertSnapshot(db: Db, snapshot: NewSnapshot): Promise<void> {
  await requireLiveTeam(db, snapshot.teamId);
  await db.insert(snapshots).values({ ...snapshot, status: 'making' });
}

export async function findSnapshot(db: Db, id: string): Promise<Snapshot | undefined> {
  const [row] = await db.select().from(snapshots).where(eq(snapshots.id, id));
  return row;
}

/** A team's own, by name or id; only one that capsules can be made of. */
export async function findReadySnapshot(db: Db, teamId: string, name: string): Promise<Snapshot | undefined> {
  const [row] = await db
    .select()
    .from(snapshots)
    .where(
      and(
        eq(snapshots.teamId, teamId),
        eq(snapshots.status, 'ready'),
        or(eq(snapshots.name, name), eq(snapshots.id, name)),
      ),
    )
    .limit(1);
  return row;
}

/** The same, also one of the platform's, which every team can use; the team's own comes first. */
export async function findUsableSnapshot(db: Db, teamId: string, name: string): Promise<Snapshot | undefined> {
  const own = await findReadySnapshot(db, teamId, name);
  return own ?? (await findReadySnapshot(db, PLATFORM_TEAM_ID, name));
}

/** Of the team and of the platform, newest first. */
export async function listReadySnapshots(
  db: Db,
  teamId: string,
  { limit, cursor }: ArrayQuery,
): Promise<Page<Snapshot>> {
  const isUsable = and(inArray(snapshots.teamId, [teamId, PLATFORM_TEAM_ID]), eq(snapshots.status, 'ready'));
  const rows = await db
    .select({ ...getTableColumns(snapshots), at: positionAt(snapshots.createdAt) })
    .from(snapshots)
    .where(and(isUsable, comesAfter(snapshots.createdAt, snapshots.id, cursor)))
    .orderBy(desc(snapshots.createdAt), desc(snapshots.id))
    .limit(limit + 1);
  return pageOf(rows, limit, (row) => row);
}

/** @returns false when it is not being made any more */
export async function markReady(
  db: Db,
  id: string,
  made: Pick<Snapshot, 'vcpus' | 'memoryMb' | 'diskMb' | 'sizeBytes'>,
): Promise<boolean> {
  const rows = await db
    .update(snapshots)
    .set({ ...made, status: 'ready' })
    .where(and(eq(snapshots.id, id), eq(snapshots.status, 'making')))
    .returning({ id: snapshots.id });
  return rows.length > 0;
}

/** From here on nobody sees it, and its name is free again. It stays as a row until its host has removed it. */
export async function markDeleting(db: Db, id: string): Promise<void> {
  await db.update(snapshots).set({ status: 'deleting', name: id }).where(eq(snapshots.id, id));
}

/** The same for one that could not be made. @returns false when it has been made, so that it stays */
export async function markFailed(db: Db, id: string): Promise<boolean> {
  await db
    .update(snapshots)
    .set({ status: 'deleting', name: id })
    .where(and(eq(snapshots.id, id), eq(snapshots.status, 'making')));
  return (await findSnapshot(db, id))?.status !== 'ready';
}

/** Marks what a failed operation left half made. */
export async function markAbandoned(db: Db): Promise<void> {
  const isMade = sql`EXISTS (
    SELECT FROM ${operations}
    WHERE ${operations.state} = 'running' AND ${operations.kind} = 'capsule.snapshot'
      AND ${operations.args} ->> 'snapshotId' = ${snapshots.id}
  )`;
  await db
    .update(snapshots)
    .set({ status: 'deleting', name: sql`${snapshots.id}` })
    .where(and(eq(snapshots.status, 'making'), sql`NOT ${isMade}`));
}

/** With the hosts that may have it and are not deleted themselves. */
export async function listDeleting(db: Db): Promise<(Snapshot & { readonly hostIds: string[] })[]> {
  const mayHave = sql`SELECT id FROM hosts WHERE deleted_at IS NULL
    AND (id = ${snapshots.hostId} OR id = ANY (${snapshots.copies}))`;
  return db
    .select({ ...getTableColumns(snapshots), hostIds: sql<string[]>`ARRAY(${mayHave})` })
    .from(snapshots)
    .where(eq(snapshots.status, 'deleting'));
}

/** Takes down that a host is about to fetch it. @returns undefined when it is not ready, so that no host may fetch it */
export async function addCopy(db: Db, id: string, hostId: string): Promise<Snapshot | undefined> {
  const { copies } = snapshots;
  const [row] = await db
    .update(snapshots)
    .set({
      copies: sql`CASE WHEN ${hostId} = ANY (${copies} || ${snapshots.hostId}) THEN ${copies} ELSE ${copies} || ${hostId}::text END`,
    })
    .where(and(eq(snapshots.id, id), eq(snapshots.status, 'ready')))
    .returning();
  return row;
}

/** Takes down where it is in the object store. @returns false when it is not ready any more: nobody else removes it there */
export async function recordPublished(db: Db, id: string, objectKey: string): Promise<boolean> {
  const rows = await db
    .update(snapshots)
    .set({ objectKey })
    .where(and(eq(snapshots.id, id), eq(snapshots.status, 'ready')))
    .returning({ id: snapshots.id });
  return rows.length > 0;
}

export async function removeSnapshotRow(db: Db, id: string): Promise<void> {
  await db.delete(snapshots).where(eq(snapshots.id, id));
}
