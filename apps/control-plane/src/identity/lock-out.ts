import { eq, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type User, users } from '../database/people-schema.ts';

/** After this many wrong passwords and codes in a row an account takes none for a while, right ones neither. */
export const FAILURES_TO_LOCK = 10;
/** The first time; each further failure doubles it. */
const FIRST_LOCK_S = 60;
const LONGEST_LOCK_S = 3600;

/**
 * Counts an attempt as failed before it is known to be, so that attempts at the same moment cannot be more than the
 * limit; one that turns out right is taken back. Completing a login forgets all failures.
 *
 * @returns undefined when there is no such account, or it is locked
 */
export async function beginAttempt(
  db: Db,
  account: { readonly email: string } | { readonly userId: string },
): Promise<User | undefined> {
  const failures = sql`${users.failedLogins} + 1`;
  const lockS = sql`least(${LONGEST_LOCK_S}, ${FIRST_LOCK_S} * power(2, least(${failures} - ${FAILURES_TO_LOCK}, 20)))`;
  const named =
    'email' in account ? sql`lower(${users.email}) = lower(${account.email})` : eq(users.id, account.userId);
  const [user] = await db
    .update(users)
    .set({
      failedLogins: failures,
      lockedUntil: sql`CASE WHEN ${failures} >= ${FAILURES_TO_LOCK} THEN now() + ${lockS} * interval '1 second' END`,
    })
    .where(sql`${named} AND (${users.lockedUntil} IS NULL OR ${users.lockedUntil} <= now())`)
    .returning();
  return user;
}

/** That attempt was right: takes back its count, and the lock with which it began. */
export async function takeBackAttempt(db: Db, userId: string): Promise<void> {
  await db
    .update(users)
    .set({ failedLogins: sql`greatest(${users.failedLogins} - 1, 0)`, lockedUntil: null })
    .where(eq(users.id, userId));
}

/** The account's owner has shown who they are. */
export async function forgetFailures(db: Db, userId: string): Promise<void> {
  await db.update(users).set({ failedLogins: 0, lockedUntil: null }).where(eq(users.id, userId));
}
