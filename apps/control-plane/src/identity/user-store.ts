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
