import type { Db } from '../database/database.ts';
import { putToken, revokeTokens, type TakenToken, type TokenPurpose, takeToken } from '../tokens/one-time-tokens.ts';

/**
 * Tokens that live for minutes, and that no transaction makes or takes together with something else. All others (of
 * mails, of second factors, of hosts) are rows of PostgreSQL always: they come and go with accounts and audit entries.
 */
export type FleetingPurpose = Extract<
  TokenPurpose,
  'oauth_state' | 'login_code' | 'passkey_login' | 'passkey_registration'
>;

export interface NewFleetingToken {
  readonly purpose: FleetingPurpose;
  /** What it is about: the id of a user, say. */
  readonly subject: string;
  readonly data?: Record<string, unknown>;
  readonly lifetimeMs: number;
  /** Earlier tokens of this kind for the subject work no more. */
  readonly replaces?: boolean;
}

/** Where control planes keep tokens that work once, whichever of them they are brought to. */
export interface FleetingTokens {
  /** Only a hash of the token is kept. @throws WrennError `database_unavailable` */
  put(token: NewFleetingToken): Promise<string>;
  /**
   * Takes a token out: of several at once, one gets it. Undefined when there is none that still holds.
   *
   * @throws WrennError `shared_state_unavailable` when nobody can say, `database_unavailable`
   */
  take(purpose: FleetingPurpose, token: string): Promise<TakenToken | undefined>;
}

export function postgresTokens(db: Db): FleetingTokens {
  return {
    async put({ replaces = false, ...token }) {
      if (replaces) await revokeTokens(db, token.purpose, token.subject);
      return putToken(db, token);
    },
    take: (purpose, token) => takeToken(db, purpose, token),
  };
}
