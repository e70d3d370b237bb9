import { WrennError } from '@wrenn/protocol/errors';
import type { AuthBody } from '@wrenn/protocol/rest/auth';
import { eq, sql } from 'drizzle-orm';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { type Actor, actorOf } from '../access/actor.ts';
import type { Db } from '../database/database.ts';
import { type User, users } from '../database/people-schema.ts';
import type { Secrets } from '../secrets/secrets.ts';
import type { Settings } from '../settings.ts';
import { pickTeam } from '../teams/teams.ts';
import { putToken } from '../tokens/one-time-tokens.ts';
import { toAuthBody } from './auth-body.ts';
import { type LoginMethod, recordLogin, recordRefusedLogin } from './login-audit.ts';
import type { OwnTeam } from './login-team.ts';
import { setSessionCookie } from './session-cookie.ts';
import { beginSession } from './sessions.ts';

/** How long the second step of a login may take. */
export const TWO_FACTOR_CHALLENGE_MS = 5 * 60_000;

export interface LoginDeps {
  readonly db: Db;
  readonly secrets: Secrets;
  readonly settings: Pick<Settings, 'publicUrl'>;
}

/** The request that logs in, and its answer, which gets the cookie. */
export interface LoginExchange {
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
}

/** Somebody who has shown who they are. */
export interface ProvenLogin {
  readonly userId: string;
  readonly method: LoginMethod;
  /** The hash that a password was compared with: a login with a password that was changed meanwhile is none. */
  readonly passwordHash?: string;
  /** The second factor was shown too, or the method stands for both, as a passkey does. */
  readonly secondFactorDone?: boolean;
}

type Refusal = 'unknown_account' | 'not_activated' | 'deactivated' | 'wrong_password';

type Outcome =
  | { readonly kind: 'refused'; readonly reason: Refusal; readonly user: User | undefined }
  /** The challenge's token has purpose `two_factor`, the user as subject, and the method in its data. */
  | { readonly kind: 'two_factor'; readonly challenge: string }
  | {
      readonly kind: 'begun';
      readonly session: { readonly id: string; readonly expiresAt: Date };
      readonly user: User;
      readonly team: OwnTeam | undefined;
    };

/**
 * Logs somebody in, whichever way they have shown who they are: begins a session for their default team, and gives its
 * token in the answer and in a cookie. Do not call it in a transaction: what it writes must stay though it throws.
 *
 * @param within runs what begins the session in a transaction, after what belongs into the same one; default: one of
 *   its own
 * @throws WrennError `two_factor_required` with a `challenge` for the second step; `account_not_activated`,
 *   `account_deactivated`; `invalid_credentials` when the account is gone or has another password by now
 */
export async function completeLogin(
  { db, secrets, settings }: LoginDeps,
  { request, reply }: LoginExchange,
  login: ProvenLogin,
  within: <T>(work: (tx: Db) => Promise<T>) => Promise<T> = (work) => db.transaction(work),
): Promise<AuthBody> {
  const someone = actorOf(request);
  const outcome = await within((tx) => begin(tx, login, someone, request.headers['user-agent']));
  switch (outcome.kind) {
    case 'refused': {
      const { user, reason } = outcome;
      const actor: Actor = { ...someone, id: login.userId, name: user?.name ?? someone.name };
      // Whoever compared the password with another hash may compare it once more.
      if (reason !== 'wrong_password') await recordRefusedLogin(db, { actor, method: login.method, reason });
      throw new WrennError(REFUSALS[reason]);
    }
    case 'two_factor':
      throw new WrennError('two_factor_required', { challenge: outcome.challenge });
    case 'begun': {
      const auth = await toAuthBody(secrets.jwtSecret, outcome.session, outcome.user, outcome.team);
      setSessionCookie(request, reply, auth, settings.publicUrl);
      return auth;
    }
  }
}

const REFUSALS = {
  unknown_account: 'invalid_credentials',
  wrong_password: 'invalid_credentials',
  not_activated: 'account_not_activated',
  deactivated: 'account_deactivated',
} as const satisfies Record<Refusal, string>;

async function begin(
  tx: Db,
  { userId, method, passwordHash, secondFactorDone = false }: ProvenLogin,
  someone: Actor,
  userAgent: string | undefined,
): Promise<Outcome> {
  // Locked, so that a change of the password or of the status comes before this or ends the session.
  const [user] = await tx.select().from(users).where(eq(users.id, userId)).for('update');
  const problem = problemWith(user, passwordHash);
  if (problem || !user) return { kind: 'refused', reason: problem ?? 'unknown_account', user };
  if (user.totpConfirmedAt && !secondFactorDone) {
    const token = { purpose: 'two_factor', subject: user.id, data: { method } } as const;
    return { kind: 'two_factor', challenge: await putToken(tx, { ...token, lifetimeMs: TWO_FACTOR_CHALLENGE_MS }) };
  }
  await tx
    .update(users)
    .set({ failedLogins: 0, lockedUntil: null, lastLoginAt: sql`now()` })
    .where(eq(users.id, user.id));
  const session = await beginSession(tx, user.id, method, { address: someone.address, userAgent });
  const team = await pickTeam(tx, user.id);
  const actor: Actor = { ...someone, id: user.id, name: user.name };
  await recordLogin(tx, actor, { sessionId: session.id, teamId: team?.id, method });
  return { kind: 'begun', session, user, team };
}

function problemWith(user: User | undefined, passwordHash: string | undefined): Refusal | undefined {
  if (!user) return 'unknown_account';
  if (passwordHash !== undefined && user.passwordHash !== passwordHash) return 'wrong_password';
  if (user.status === 'inactive') return 'not_activated';
  return user.status === 'active' ? undefined : 'deactivated';
}
