import { and, eq } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { identities, type User, users } from '../database/people-schema.ts';

export interface Identity {
  readonly provider: string;
  /** The provider's own id of the account. */
  readonly subject: string;
  readonly email: string | undefined;
}

/** Whose account of ours an account of a provider logs in to. */
export async function findUserOfIdentity(
  db: Db,
  { provider, subject }: Pick<Identity, 'provider' | 'subject'>,
): Promise<User | undefined> {
  const [row] = await db
    .select({ user: users })
    .from(identities)
    .innerJoin(users, eq(users.id, identities.userId))
    .where(and(eq(identities.provider, provider), eq(identities.subject, subject)));
  return row?.user;
}

/** @returns false when it belongs to an account already, or the user has another one of that provider */
export async function insertIdentity(tx: Db, userId: string, { provider, subject, email }: Identity): Promise<boolean> {
  const inserted = await tx
    .insert(identities)
    .values({ provider, subject, userId, email: email ?? null })
    .onConflictDoNothing()
    .returning({ provider: identities.provider });
  return inserted.length > 0;
}

/** @returns whether there was one */
export async function deleteIdentity(tx: Db, userId: string, provider: string): Promise<boolean> {
  const deleted = await tx
    .delete(identities)
    .where(and(eq(identities.userId, userId), eq(identities.provider, provider)))
    .returning({ provider: identities.provider });
  return deleted.length > 0;
}
