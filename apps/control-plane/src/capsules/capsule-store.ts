import type { CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import { and, desc, eq, inArray, ne, notInArray } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type Capsule, capsules, type NewCapsule } from '../database/schema.ts';

/** The status of a new row is `pending`; every later one is written by transition.ts. */
export async function insertCapsule(db: Db, capsule: Omit<NewCapsule, 'status'>): Promise<Capsule> {
  const [row] = await db
    .insert(capsules)
    .values({ ...capsule, status: 'pending' })
    .returning();
  if (!row) throw new Error('INSERT gave no row');
  return row;
}

export async function findCapsule(db: Db, id: string): Promise<Capsule | undefined> {
  const [row] = await db.select().from(capsules).where(eq(capsules.id, id));
  return row;
}

/** In the order of the ids. */
export async function findCapsules(db: Db, ids: readonly string[]): Promise<Capsule[]> {
  const rows = await db
    .select()
    .from(capsules)
    .where(inArray(capsules.id, [...ids]));
  const byId = new Map(rows.map((row) => [row.id, row]));
  return ids.flatMap((id) => byId.get(id) ?? []);
}

/**
 * Records what a host says of the last generation of a capsule that is in no other state for it.
 *
 * @param seen the capsule as it was when the host was asked
 */
export async function mirrorGeneration(
  db: Db,
  seen: Pick<Capsule, 'id' | 'version'>,
  changes: Pick<Capsule, 'generation' | 'snapshotBytes' | 'snapshotProblem'>,
): Promise<void> {
  await db
    .update(capsules)
    .set(changes)
    .where(and(eq(capsules.id, seen.id), eq(capsules.version, seen.version)));
}

/** @returns whether it was as the caller saw it */
export async function clearObjectKey(db: Db, seen: Pick<Capsule, 'id' | 'version'>): Promise<boolean> {
  const rows = await db
    .update(capsules)
    .set({ objectKey: null })
    .where(and(eq(capsules.id, seen.id), eq(capsules.version, seen.version)))
    .returning({ id: capsules.id });
  return rows.length > 0;
}

export async function findTeamCapsule(db: Db, teamId: string, id: string): Promise<Capsule | undefined> {
  const [row] = await db
    .select()
    .from(capsules)
    .where(and(eq(capsules.id, id), eq(capsules.teamId, teamId)));
  return row;
}

/** Newest first. */
export async function listTeamCapsules(
  db: Db,
  teamId: string,
  filter: { only: CapsuleStatus[] } | { allBut: CapsuleStatus[] },
): Promise<Capsule[]> {
  const status = 'only' in filter ? inArray(capsules.status, filter.only) : notInArray(capsules.status, filter.allBut);
  return db
    .select()
    .from(capsules)
    .where(and(eq(capsules.teamId, teamId), status))
    .orderBy(desc(capsules.createdAt), desc(capsules.id));
}

export async function listHostCapsules(db: Db, hostId: string): Promise<Capsule[]> {
  return db
    .select()
    .from(capsules)
    .where(and(eq(capsules.hostId, hostId), ne(capsules.status, 'stopped')));
}
