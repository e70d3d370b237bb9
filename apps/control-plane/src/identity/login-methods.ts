import { WrennError } from '@wrenn/protocol/errors';
import { eq } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { identities, passkeys, users } from '../database/people-schema.ts';

/** One way to log in to an account, other than its password. */
export type RemovableMethod =
  | { readonly kind: 'provider'; readonly provider: string }
  | { readonly kind: 'passkey'; readonly id: string };

/**
 * Makes sure that an account can still be logged in to without one of its ways. Locks the account, so that of two ways
 * that are removed at the same moment one stays.
 *
 * @param configured providers that can be logged in with; the others are no way
 * @throws WrennError `last_login_method`
 */
export async function requireOtherMethod(
  tx: Db,
  userId: string,
  configured: readonly string[],
  removed: RemovableMethod,
): Promise<void> {
  const [user] = await tx.select().from(users).where(eq(users.id, userId)).for('update');
  if (user?.passwordHash) return;
  const linked = await tx
    .select({ provider: identities.provider })
    .from(identities)
    .where(eq(identities.userId, userId));
  const isOther = (provider: string) => removed.kind !== 'provider' || provider !== removed.provider;
  if (linked.some(({ provider }) => configured.includes(provider) && isOther(provider))) return;
  const own = await tx.select({ id: passkeys.id }).from(passkeys).where(eq(passkeys.userId, userId));
  if (own.some(({ id }) => removed.kind !== 'passkey' || id !== removed.id)) return;
  throw new WrennError('last_login_method');
}
