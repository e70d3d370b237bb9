import { and, desc, eq, or, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { operations, type Snapshot, snapshots } from '../database/schema.ts';

/** Unique index on (team_id, name). */
export const SNAPSHOT_NAME_INDEX = 'snapshots_name';

export type NewSnapshot = Omit<typeof snapshots.$inferInsert, 'status' | 'sizeBytes' | 'createdAt'>;

export async function insertSnapshot(db: Db, snapshot: NewSnapshot): Promise<void> {
  await db.insert(snapshots).values({ ...snapshot, status: 'making' });
}

export async function findSnapshot(db: Db, id: string): Promise<Snapshot | undefined> {
  const [row] = await db.select().from(snapshots).where(eq(snapshots.id, id));
  return row;
}

/** By name or id; only one that capsules can be made of. */
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

/** Newest first. */
export async function listReadySnapshots(db: Db, teamId: string): Promise<Snapshot[]> {
  return db
    .select()
    .from(snapshots)
    .where(and(eq(snapshots.teamId, teamId), eq(snapshots.status, 'ready')))
    .orderBy(desc(snapshots.createdAt), desc(snapshots.id));
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

export async function listDeleting(db: Db): Promise<Snapshot[]> {
  return db.select().from(snapshots).where(eq(snapshots.status, 'deleting'));
}

export async function removeSnapshotRow(db: Db, id: string): Promise<void> {
  await db.delete(snapshots).where(eq(snapshots.id, id));
}
