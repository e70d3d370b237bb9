import { WrennError } from '@wrenn/protocol/errors';
import type { AuthBody } from '@wrenn/protocol/rest/auth';
import { z } from 'zod';
import { actorOf } from '../access/actor.ts';
import { as } from '../identity/account-audit.ts';
import { completeLogin, type LoginDeps, type LoginExchange } from '../identity/complete-login.ts';
import { recordRefusedLogin } from '../identity/login-audit.ts';
import { findUser } from '../identity/user-store.ts';
import { peekToken, takeToken } from '../tokens/one-time-tokens.ts';
import { demandSecondFactor } from './second-factor.ts';

const challengeSchema = z.object({ method: z.string() });

/**
 * The second step of a login. A wrong code leaves the challenge as it is, so that another can be tried.
 *
 * @throws WrennError `invalid_token` when the challenge holds no more, `wrong_code`, `rate_limited` when the account is
 *   locked, and as `completeLogin`
 */
export async function loginWithSecondFactor(
  deps: LoginDeps,
  exchange: LoginExchange,
  { challenge, code }: { readonly challenge: string; readonly code: string },
): Promise<AuthBody> {
  const { db } = deps;
  const begun = await peekToken(db, 'two_factor', challenge);
  if (!begun) throw new WrennError('invalid_token');
  const userId = begun.subject;
  const { method } = challengeSchema.parse(begun.data);
  const someone = actorOf(exchange.request);
  const user = await findUser(db, userId);
  const actor = user ? as(user, someone) : someone;
  const login = { userId, method, secondFactorDone: true };
  try {
    // All in one: a change of the password has taken the challenge back before, or ends the session.
    return await completeLogin(deps, exchange, login, (begin) =>
      demandSecondFactor(deps, userId, actor, code, async (tx) => {
        if (!(await takeToken(tx, 'two_factor', challenge))) throw new WrennError('invalid_token');
        return begin(tx);
      }),
    );
  } catch (error) {
    const reason = reasonOf(error);
    if (reason) await recordRefusedLogin(db, { actor, method, reason });
    throw error;
  }
}

function reasonOf(error: unknown): 'wrong_code' | 'locked' | undefined {
  if (!(error instanceof WrennError)) return undefined;
  if (error.code === 'wrong_code') return 'wrong_code';
  return error.code === 'rate_limited' ? 'locked' : undefined;
}
