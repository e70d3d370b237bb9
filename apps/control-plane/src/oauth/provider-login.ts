import { newId } from '@wrenn/protocol/ids';
import { and, eq, sql } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import type { Db } from '../database/database.ts';
import { type User, users } from '../database/people-schema.ts';
import { as, recordOnAccount } from '../identity/account-audit.ts';
import { recordRefusedLogin } from '../identity/login-audit.ts';
import type { Settings } from '../settings.ts';
import { acceptInvitation } from '../teams/accept-invitation.ts';
import { createDefaultTeam } from '../teams/teams.ts';
import { findUserOfIdentity, insertIdentity } from './identity-store.ts';
import { LoginProblem } from './login-problem.ts';
import type { ProviderAccount, ProviderId } from './provider.ts';

const NAME_LENGTH = 100;

/** Somebody who has logged in at a provider. */
export interface ProviderVisit {
  readonly provider: ProviderId;
  readonly account: ProviderAccount;
  /** Whoever sent the request, before it is known who that is. */
  readonly someone: Actor;
}

/**
 * The account of ours that an account of a provider is linked to. One that has the same e-mail address is not: whoever
 * has it must log in and link.
 *
 * @throws LoginProblem `no_account`, `account_deactivated`
 */
export async function findLinkedUser(db: Db, { provider, account, someone }: ProviderVisit): Promise<User> {
  const user = await findUserOfIdentity(db, { provider, subject: account.subject });
  if (user?.status === 'active') return user;
  const actor = user ? as(user, someone) : { ...someone, name: account.email ?? someone.name };
  await recordRefusedLogin(db, { actor, method: provider, reason: user ? 'deactivated' : 'unknown_account' });
  throw new LoginProblem(user ? 'account_deactivated' : 'no_account');
}

/**
 * A new account that logs in with the provider, active at once since the provider has verified its address. Who has an
 * account already that is linked gets that one.
 *
 * @throws LoginProblem `email_unverified`, `email_taken`, `account_deactivated`, `sign_up_closed`;
 *   WrennError of `acceptInvitation`
 */
export async function signUpWithProvider(
  db: Db,
  settings: Pick<Settings, 'signUp'>,
  visit: ProviderVisit,
  invitation: string | undefined,
): Promise<User> {
  const { provider, account, someone } = visit;
  const existing = await findUserOfIdentity(db, { provider, subject: account.subject });
  if (existing) return findLinkedUser(db, visit);
  const { email } = account;
  if (email === undefined) throw new LoginProblem('email_unverified');
  if (settings.signUp === 'invited' && invitation === undefined) throw new LoginProblem('sign_up_closed');
  return db.transaction(async (tx) => {
    const user = await insertUser(tx, email, account.name);
    if (!(await insertIdentity(tx, user.id, { provider, subject: account.subject, email })))
      throw new LoginProblem('identity_taken');
    const actor = as(user, someone);
    if (invitation === undefined) await createDefaultTeam(tx, user, actor);
    else await acceptInvitation(tx, { token: invitation, user, actor });
    await recordOnAccount(tx, actor, user.id, 'sign_up', { method: provider });
    return user;
  });
}

/** @throws LoginProblem `email_taken` */
async function insertUser(tx: Db, email: string, name: string | undefined): Promise<User> {
  // Who signed up with the address and has not shown that it is theirs does not keep it from its owner.
  await tx.delete(users).where(and(sql`lower(${users.email}) = lower(${email})`, eq(users.status, 'inactive')));
  const shown =
    (name ?? '')
      .replaceAll(/\p{Cc}/gu, ' ')
      .trim()
      .slice(0, NAME_LENGTH)
      .trim() || (email.split('@')[0] ?? email).slice(0, NAME_LENGTH);
  const [user] = await tx
    .insert(users)
    .values({ id: newId('usr'), email, name: shown, status: 'active' })
    .onConflictDoNothing()
    .returning();
  if (!user) throw new LoginProblem('email_taken');
  return user;
}
