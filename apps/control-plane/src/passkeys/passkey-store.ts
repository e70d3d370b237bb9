import { and, asc, count, eq, lt, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { passkeys } from '../database/people-schema.ts';

export type Passkey = typeof passkeys.$inferSelect;

export function listPasskeys(db: Db, userId: string): Promise<Passkey[]> {
  return db
    .select()
    .from(passkeys)
    .where(eq(passkeys.userId, userId))
    .orderBy(asc(passkeys.createdAt), asc(passkeys.id));
}

export async function countPasskeys(db: Db, userId: string): Promise<number> {
  const [row] = await db.select({ count: count() }).from(passkeys).where(eq(passkeys.userId, userId));
  return row?.count ?? 0;
}

export async function findPasskeyByCredential(db: Db, credentialId: string): Promise<Passkey | undefined> {
  const [found] = await db.select().from(passkeys).where(eq(passkeys.credentialId, credentialId));
  return found;
}

/** @returns undefined when somebody has that passkey already */
export async function insertPasskey(db: Db, passkey: typeof passkeys.$inferInsert): Promise<Passkey | undefined> {
  const [inserted] = await db.insert(passkeys).values(passkey).onConflictDoNothing().returning();
  return inserted;
}

const OWN = (userId: string, id: string) => and(eq(passkeys.id, id), eq(passkeys.userId, userId));

export async function renamePasskey(db: Db, userId: string, id: string, name: string): Promise<Passkey | undefined> {
  const [renamed] = await db.update(passkeys).set({ name }).where(OWN(userId, id)).returning();
  return renamed;
}

export async function deletePasskey(db: Db, userId: string, id: string): Promise<Passkey | undefined> {
  const [deleted] = await db.delete(passkeys).where(OWN(userId, id)).returning();
  return deleted;
}

/**
 * Puts down that a passkey was used. Authenticators that count never give a number twice; those that do not give 0.
 *
 * @returns false when this number, or a higher one, was given before
 */
export async function countUse(db: Db, id: string, counter: number): Promise<boolean> {
  const rises = counter > 0 ? lt(passkeys.counter, counter) : eq(passkeys.counter, 0);
  const used = await db
    .update(passkeys)
    .set({ counter, lastUsedAt: sql`now()` })
    .where(and(eq(passkeys.id, id), rises))
    .returning({ id: passkeys.id });
  return used.length > 0;
}
