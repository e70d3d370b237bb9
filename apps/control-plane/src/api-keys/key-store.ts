import type { ArrayQuery } from '@wrenn/protocol/rest/paging';
import { and, desc, eq, isNull, type SQL } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type ApiKey, apiKeys, users } from '../database/people-schema.ts';
import { comesAfter, type Page, pageOf, positionAt } from '../http/cursor.ts';

/** A key and who made it. */
export interface KeyWithCreator {
  readonly key: ApiKey;
  readonly creatorEmail: string | null;
}

/** Which keys of a team somebody sees: all, or those of one person. */
export interface KeysInSight {
  readonly teamId: string;
  /** Undefined: everybody's and the team's. */
  readonly userId: string | undefined;
}

function inSight({ teamId, userId }: KeysInSight): SQL | undefined {
  return and(
    eq(apiKeys.teamId, teamId),
    isNull(apiKeys.revokedAt),
    userId === undefined ? undefined : eq(apiKeys.userId, userId),
  );
}

/** Newest first, without those that were revoked. */
export async function listKeys(
  db: Db,
  sight: KeysInSight,
  { limit, cursor }: ArrayQuery,
): Promise<Page<KeyWithCreator>> {
  const rows = await selectKeys(db)
    .where(and(inSight(sight), comesAfter(apiKeys.createdAt, apiKeys.id, cursor)))
    .orderBy(desc(apiKeys.createdAt), desc(apiKeys.id))
    .limit(limit + 1);
  return pageOf(rows, limit, ({ at, key }) => ({ at, id: key.id }));
}

export async function findKey(db: Db, sight: KeysInSight, id: string): Promise<KeyWithCreator | undefined> {
  const [found] = await selectKeys(db).where(and(inSight(sight), eq(apiKeys.id, id)));
  return found;
}

function selectKeys(db: Db) {
  return db
    .select({ key: apiKeys, creatorEmail: users.email, at: positionAt(apiKeys.createdAt) })
    .from(apiKeys)
    .leftJoin(users, eq(users.id, apiKeys.createdBy));
}

/** The caller holds the team. */
export async function insertKey(tx: Db, values: typeof apiKeys.$inferInsert): Promise<ApiKey> {
  const [key] = await tx.insert(apiKeys).values(values).returning();
  if (!key) throw new Error('INSERT gave no row');
  return key;
}

/** @returns whether there was one in sight */
export async function renameKey(db: Db, sight: KeysInSight, id: string, name: string): Promise<boolean> {
  return (await changeKey(db, sight, id, { name })) !== undefined;
}

/** Marks a key as revoked. Of several at once one gets it; the others get undefined. */
export function revokeKeyRow(db: Db, sight: KeysInSight, id: string): Promise<ApiKey | undefined> {
  return changeKey(db, sight, id, { revokedAt: new Date() });
}

async function changeKey(db: Db, sight: KeysInSight, id: string, change: Partial<ApiKey>): Promise<ApiKey | undefined> {
  const [key] = await db
    .update(apiKeys)
    .set(change)
    .where(and(inSight(sight), eq(apiKeys.id, id)))
    .returning();
  return key;
}
