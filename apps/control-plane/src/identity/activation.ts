import { WrennError } from '@wrenn/protocol/errors';
import type { AuthBody } from '@wrenn/protocol/rest/auth';
import { z } from 'zod';
import { type Actor, actorOf } from '../access/actor.ts';
import type { Db } from '../database/database.ts';
import type { User } from '../database/people-schema.ts';
import { acceptInvitation } from '../teams/accept-invitation.ts';
import { createDefaultTeam } from '../teams/teams.ts';
import { takeToken } from '../tokens/one-time-tokens.ts';
import { as, recordOnAccount } from './account-audit.ts';
import type { AccountDeps } from './account-deps.ts';
import { completeLogin, type LoginExchange } from './complete-login.ts';
import { findUser, updateUser } from './user-store.ts';

const tokenDataSchema = z.object({ invitation: z.string().optional() });

/**
 * Makes an account active, in a team of its own or the one that invited it, and logs in. Nobody becomes administrator
 * of the platform by it.
 *
 * @throws WrennError `invalid_token`, `already_activated`, `sign_up_closed`
 */
export async function activate(deps: AccountDeps, exchange: LoginExchange, token: string): Promise<AuthBody> {
  const someone = actorOf(exchange.request);
  const user = await deps.db.transaction(async (tx) => {
    const taken = await takeToken(tx, 'activation', token);
    if (!taken) throw new WrennError('invalid_token');
    const activated = await updateUser(tx, taken.subject, 'inactive', { status: 'active' });
    if (!activated) {
      const found = await findUser(tx, taken.subject);
      throw new WrennError(found?.status === 'active' ? 'already_activated' : 'invalid_token');
    }
    const actor = as(activated, someone);
    await recordOnAccount(tx, actor, activated.id, 'activate');
    await enterTeam(tx, deps.settings, activated, actor, tokenDataSchema.parse(taken.data).invitation);
    return activated;
  });
  return completeLogin(deps, exchange, { userId: user.id, method: 'activation' });
}

/**
 * An invitation that was revoked or taken meanwhile keeps people out of platforms that are closed; elsewhere they get a
 * team of their own.
 */
async function enterTeam(
  tx: Db,
  { signUp }: AccountDeps['settings'],
  user: User,
  actor: Actor,
  invitation: string | undefined,
): Promise<void> {
  if (invitation !== undefined) {
    try {
      await tx.transaction((inner) => acceptInvitation(inner, { token: invitation, user, actor }));
      return;
    } catch (error) {
      if (!(error instanceof WrennError)) throw error;
      if (signUp === 'invited') throw new WrennError('sign_up_closed', {}, { cause: error });
    }
  }
  await createDefaultTeam(tx, user, actor);
}
