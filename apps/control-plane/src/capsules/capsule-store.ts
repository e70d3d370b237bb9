import type { CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import { and, desc, eq, inArray, min, ne, notInArray, sql } from 'drizzle-orm';
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

/** Records that capsules are in use right now. */
export async function touchCapsules(db: Db, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  await db
    .update(capsules)
    .set({ lastActiveAt: sql`now()` })
    .where(inArray(capsules.id, [...ids]));
}

const idleDeadline = sql<Date>`${capsules.lastActiveAt} + ${capsules.timeoutSec} * interval '1 second'`;
const canIdle = sql`${capsules.status} = 'running' AND ${capsules.timeoutSec} > 0`;

/** Running capsules that nobody has used for their `timeout_sec`. */
export async function listIdleCapsules(db: Db): Promise<Capsule[]> {
  return db
    .select()
    .from(capsules)
    .where(and(canIdle, sql`${idleDeadline} <= now()`));
}

/** Milliseconds until the next capsule can be idle for too long; undefined when none can. */
export async function msUntilNextIdle(db: Db): Promise<number | undefined> {
  const [row] = await db
    .select({ ms: min(sql<number>`extract(epoch FROM ${idleDeadline} - now()) * 1000`).mapWith(Number) })
    .from(capsules)
    .where(canIdle);
  return row?.ms ?? undefined;
}
