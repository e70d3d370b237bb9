import { WrennError } from '@wrenn/protocol/errors';
import type { AuthBody } from '@wrenn/protocol/rest/auth';
import { actorOf } from '../access/actor.ts';
import { as } from './account-audit.ts';
import type { AccountDeps } from './account-deps.ts';
import { completeLogin, type LoginExchange } from './complete-login.ts';
import { recordRefusedLogin } from './login-audit.ts';
import { checkPassword, renewHash } from './password-check.ts';
import { failInUniformTime } from './uniform-time.ts';
import { findUserByEmail } from './user-store.ts';

const METHOD = 'password';

export interface Credentials {
  readonly email: string;
  readonly password: string;
}

/**
 * Logs in with a password. An unknown address, a wrong password and a locked account give one answer, at one time.
 *
 * @throws WrennError `invalid_credentials`; with the right password also `account_not_activated`,
 *   `account_deactivated`, `two_factor_required`; `rate_limited`
 */
export function logInWithPassword(
  deps: AccountDeps,
  exchange: LoginExchange,
  credentials: Credentials,
): Promise<AuthBody> {
  return failInUniformTime(async () => {
    // A second time where another login has just renewed the hash that the first one compared with.
    const auth = (await tryOnce(deps, exchange, credentials)) ?? (await tryOnce(deps, exchange, credentials));
    return auth ?? refuse(deps, exchange, credentials.email, 'wrong');
  });
}

/** Undefined: the password was right, and is another one now or hashed anew. */
async function tryOnce(
  deps: AccountDeps,
  exchange: LoginExchange,
  { email, password }: Credentials,
): Promise<AuthBody | undefined> {
  const check = await checkPassword(deps, { email }, password);
  if (check.is !== 'right') return refuse(deps, exchange, email, check.is);
  const { user, passwordHash, isStale } = check;
  try {
    const auth = await completeLogin(deps, exchange, { userId: user.id, method: METHOD, passwordHash });
    if (isStale) await renewIfIdle(deps, exchange, user.id, password, passwordHash);
    return auth;
  } catch (error) {
    if (error instanceof WrennError && error.code === 'invalid_credentials') return undefined;
    throw error;
  }
}

/** The login is complete: that too many passwords wait to be hashed leaves this to the next one. */
async function renewIfIdle(
  deps: AccountDeps,
  { request }: LoginExchange,
  userId: string,
  password: string,
  passwordHash: string,
): Promise<void> {
  try {
    await renewHash(deps, userId, password, passwordHash);
  } catch (err) {
    request.log.warn({ err }, 'a stale hash of a password was not renewed');
  }
}

async function refuse(
  { db }: AccountDeps,
  { request }: LoginExchange,
  email: string,
  is: 'wrong' | 'refused',
): Promise<never> {
  const someone = actorOf(request);
  const user = await findUserByEmail(db, email);
  const actor = user ? as(user, someone) : { ...someone, name: email };
  const reason = is === 'wrong' ? 'wrong_password' : user ? 'locked' : 'unknown_account';
  await recordRefusedLogin(db, { actor, method: METHOD, reason });
  throw new WrennError('invalid_credentials');
}
