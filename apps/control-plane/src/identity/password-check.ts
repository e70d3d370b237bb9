import { and, eq } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type User, users } from '../database/people-schema.ts';
import { beginAttempt, takeBackAttempt } from './lock-out.ts';
import type { Passwords } from './passwords.ts';

interface CheckDeps {
  readonly db: Db;
  readonly passwords: Passwords;
}

/** What comparing a password with an account's gave. */
export type PasswordCheck =
  | { readonly is: 'right'; readonly user: User; readonly passwordHash: string; readonly isStale: boolean }
  | { readonly is: 'wrong'; readonly user: User }
  /** There is no such account, or it takes no passwords for a while. */
  | { readonly is: 'refused' };

/**
 * Compares a password with an account's. A wrong one counts towards the account's lock. Takes as long where there is no
 * such account, it is locked, or has no password.
 *
 * @throws WrennError `rate_limited` when too many wait already
 */
export async function checkPassword(
  { db, passwords }: CheckDeps,
  account: { readonly email: string } | { readonly userId: string },
  password: string,
): Promise<PasswordCheck> {
  const found: { user?: User | undefined } = {};
  const { matches, isStale } = await passwords.compare(password, async () => {
    found.user = await beginAttempt(db, account);
    return found.user?.passwordHash ?? undefined;
  });
  const { user } = found;
  if (!user) return { is: 'refused' };
  if (!matches || user.passwordHash === null) return { is: 'wrong', user };
  await takeBackAttempt(db, user.id);
  return { is: 'right', user, passwordHash: user.passwordHash, isStale };
}

/** Hashes a password once more, at the cost of now. One that was changed meanwhile stays. */
export async function renewHash(
  { db, passwords }: CheckDeps,
  userId: string,
  password: string,
  passwordHash: string,
): Promise<void> {
  const renewed = await passwords.hash(password);
  await db
    .update(users)
    .set({ passwordHash: renewed })
    .where(and(eq(users.id, userId), eq(users.passwordHash, passwordHash)));
}
