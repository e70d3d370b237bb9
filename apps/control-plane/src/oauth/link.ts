import { WrennError } from '@wrenn/protocol/errors';
import { and, eq } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import { identities, users } from '../database/people-schema.ts';
import { as } from '../identity/account-audit.ts';
import { requireOtherMethod } from '../identity/login-methods.ts';
import { findSignedInUser } from '../identity/sessions.ts';
import { deleteIdentity, findUserOfIdentity, insertIdentity } from './identity-store.ts';
import { LoginProblem } from './login-problem.ts';
import type { ProviderVisit } from './provider-login.ts';

/**
 * Lets an account of a provider log in to the account of whoever began to link, as long as that session lives. Linking
 * once more what is linked changes nothing.
 *
 * @throws LoginProblem `invalid_state` when the session has ended, `identity_taken`, `already_linked`
 */
export async function linkProvider(
  db: Db,
  { userId, sessionId }: { readonly userId: string; readonly sessionId: string },
  { provider, account, someone }: ProviderVisit,
): Promise<void> {
  const user = await findSignedInUser(db, { userId, sessionId, teamId: undefined }).catch((error: unknown) => {
    throw error instanceof WrennError ? new LoginProblem('invalid_state') : error;
  });
  const { subject, email } = account;
  await db.transaction(async (tx) => {
    await tx.select({ id: users.id }).from(users).where(eq(users.id, userId)).for('update');
    if (!(await insertIdentity(tx, userId, { provider, subject, email }))) {
      const owner = await findUserOfIdentity(tx, { provider, subject });
      if (owner?.id === userId) return;
      throw new LoginProblem(owner ? 'identity_taken' : 'already_linked');
    }
    await recordChange(tx, as(user, someone), provider, 'link', email);
  });
}

/**
 * @param configured providers that can be logged in with
 * @throws WrennError `not_found`, `last_login_method`
 */
export async function unlinkProvider(
  db: Db,
  userId: string,
  actor: Actor,
  provider: string,
  configured: readonly string[],
): Promise<void> {
  await db.transaction(async (tx) => {
    await requireLinked(tx, userId, provider);
    await requireOtherMethod(tx, userId, configured, { kind: 'provider', provider });
    // Of two at once, the other may have been first.
    if (await deleteIdentity(tx, userId, provider)) await recordChange(tx, actor, provider, 'unlink', undefined);
  });
}

/** @throws WrennError `not_found` */
async function requireLinked(tx: Db, userId: string, provider: string): Promise<void> {
  const [linked] = await tx
    .select({ provider: identities.provider })
    .from(identities)
    .where(and(eq(identities.userId, userId), eq(identities.provider, provider)));
  if (!linked) throw new WrennError('not_found', { what: `A link with ${provider}` });
}

async function recordChange(
  tx: Db,
  actor: Actor,
  provider: string,
  action: 'link' | 'unlink',
  email: string | undefined,
): Promise<void> {
  await recordAudit(tx, {
    teamId: undefined,
    actor,
    resourceType: 'provider',
    resourceId: provider,
    action,
    scope: 'platform',
    status: 'success',
    metadata: email === undefined ? {} : { email },
  });
}
