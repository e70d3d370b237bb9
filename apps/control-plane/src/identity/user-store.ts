import { WrennError } from '@wrenn/protocol/errors';
import { and, eq, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type User, users } from '../database/people-schema.ts';

/** How addresses are compared: without regard to case. */
export function isSameAddress(a: string, b: string): boolean {
  return a.toLowerCase() === b.toLowerCase();
}

export async function findUser(db: Db, id: string): Promise<User | undefined> {
  const [user] = await db.select().from(users).where(eq(users.id, id));
  return user;
}

export async function findUserByEmail(db: Db, email: string): Promise<User | undefined> {
  const [user] = await db.select().from(users).where(sql`lower(${users.email}) = lower(${email})`);
  return user;
}

/** The same, locked until the transaction ends. */
export async function lockUserByEmail(tx: Db, email: string): Promise<User | undefined> {
  const [user] = await tx.select().from(users).where(sql`lower(${users.email}) = lower(${email})`).for('update');
  return user;
}

/**
 * Makes changes of an account wait for each other until the transaction ends. Before what is the account's own, such as
 * its tokens, and before teams.
 */
export async function lockUser(tx: Db, id: string): Promise<User | undefined> {
  // Not `update`, which would also keep out rows that refer to it, of those who hold a team.
  const [user] = await tx.select().from(users).where(eq(users.id, id)).for('no key update');
  return user;
}

/** Holds off changes of an account until the transaction ends. Several may do that at once. */
export async function holdUser(tx: Db, id: string): Promise<User | undefined> {
  const [user] = await tx.select().from(users).where(eq(users.id, id)).for('share');
  return user;
}

/**
 * Keeps an account active until the transaction ends: what is made for it is there when it ends. Before teams.
 *
 * @throws WrennError `account_deactivated`
 */
export async function requireActiveUser(tx: Db, id: string): Promise<void> {
  const user = await holdUser(tx, id);
  if (user?.status !== 'active') throw new WrennError('account_deactivated');
}

/** Changes a user that has that status. Undefined: there is none. */
export async function updateUser(
  tx: Db,
  id: string,
  status: User['status'],
  change: Partial<typeof users.$inferInsert>,
): Promise<User | undefined> {
  const [user] = await tx
    .update(users)
    .set({ ...change, updatedAt: sql`now()` })
    .where(and(eq(users.id, id), eq(users.status, status)))
    .returning();
  return user;
}
