import type { Account } from './users/accounts.ts';
import { findAccount, ownAccount } from './users/accounts.ts';

/** What `/init` sets and everything else reads. Each later `/init` changes it for what comes after. */
export interface GuestState {
  accessToken: string | undefined;
  defaultUser: string | undefined;
  defaultWorkdir: string | undefined;
  /** Environment of every process, below what its own request sets. */
  environment: Map<string, string>;
}

export function createGuestState(guest: boolean): GuestState {
  const inSandbox = String(guest);
  return {
    accessToken: undefined,
    defaultUser: undefined,
    defaultWorkdir: undefined,
    environment: new Map([
      ['WRENN_SANDBOX', inSandbox],
      ['E2B_SANDBOX', inSandbox],
    ]),
  };
}

/** The account that a request acts as: the one that it names, else the default, else envd's own. */
export function effectiveAccount(state: GuestState, requested: string | undefined): Account {
  const name = requested ?? state.defaultUser;
  return name === undefined ? ownAccount() : findAccount(name);
}

/**
 * The user that `Authorization: Basic` names. It chooses the user and proves nothing; the access token does that.
 * Other schemes choose nobody.
 */
export function basicAuthUser(authorization: string | null | undefined): string | undefined {
  const encoded = /^basic +([A-Za-z0-9+/=]+)$/i.exec(authorization?.trim() ?? '')?.[1];
  if (encoded === undefined) return undefined;
  const decoded = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  return colon > 0 ? decoded.slice(0, colon) : undefined;
}
