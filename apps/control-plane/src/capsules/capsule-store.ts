import { and, eq, getTableColumns, inArray, ne, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type Capsule, capsules, type NewCapsule } from '../database/schema.ts';
import { isWanted } from '../events/publish.ts';
import { requireLiveTeam } from '../teams/team-store.ts';

/** A capsule that was just inserted. */
export interface InsertedCapsule extends Capsule {
  /** Whether a channel is to be told of it. */
  readonly isAwaited: boolean;
}

/**
 * The status of a new row is `pending`; every later one is written by transition.ts.
 *
 * @throws WrennError `not_found` when the team is deleted
 */
export async function insertCapsule(db: Db, capsule: Omit<NewCapsule, 'status'>): Promise<InsertedCapsule> {
  await requireLiveTeam(db, capsule.teamId);
  const [row] = await db
    .insert(capsules)
    .values({ ...capsule, status: 'pending' })
    .returning({
      ...getTableColumns(capsules),
      isAwaited: sql<boolean>`${isWanted(capsules.teamId, 'capsule.created')}`,
    });
  if (!row) throw new Error('INSERT gave no row');
  return row;
}

export async function findCapsule(db: Db, id: string): Promise<Capsule | undefined> {
  const [row] = await db.select().from(capsules).where(eq(capsules.id, id));
  return row;
}

/** Nobody else changes it until the transaction ends. */
export async function lockCapsule(tx: Db, id: string): Promise<Capsule | undefined> {
  const [row] = await tx.select().from(capsules).where(eq(capsules.id, id)).for('no key update');
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

export async function listHostCapsules(db: Db, hostId: string): Promise<Capsule[]> {
  return db
    .select()
    .from(capsules)
    .where(and(eq(capsules.hostId, hostId), ne(capsules.status, 'stopped')));
}

/** Ids of the capsules that were lost with their host. */
export async function listMissing(db: Db, hostId: string): Promise<string[]> {
  const rows = await db
    .select({ id: capsules.id })
    .from(capsules)
    .where(and(eq(capsules.hostId, hostId), eq(capsules.status, 'missing')));
  return rows.map(({ id }) => id);
}
