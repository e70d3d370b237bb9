import { WrennError } from '@wrenn/protocol/errors';
import type { KeyScope } from '@wrenn/protocol/rest/api-keys';
import type { TeamRole } from '@wrenn/protocol/rest/teams';

/** A person who is logged in. */
export interface SignedInUser {
  readonly type: 'user';
  /** Id of the user. */
  readonly id: string;
  readonly name: string;
  readonly email: string;
  readonly sessionId: string;
  /** Administrator of the platform, as the database says now. */
  readonly isAdmin: boolean;
  /** The team that the token is for, as long as it lives and the user is in it. */
  readonly team: { readonly id: string; readonly role: TeamRole } | undefined;
}

/** A program with an API key. */
export interface KeyHolder {
  readonly type: 'api_key';
  /** Id of the key. */
  readonly id: string;
  readonly name: string;
  /** Whose key it is, where it is a person's own. */
  readonly userId: string | undefined;
  readonly team: { readonly id: string; readonly role: TeamRole };
  /** Undefined: all. */
  readonly scopes: readonly KeyScope[] | undefined;
}

/** The agent of a host that was registered. */
export interface HostAgent {
  readonly type: 'host';
  /** Id of the host. */
  readonly id: string;
  readonly name: string;
  /** Id of the set of credentials that its token is of. */
  readonly credentialId: string;
  readonly team: undefined;
}

/** Whoever a credential stands for. */
export type Principal = SignedInUser | KeyHolder | HostAgent;

/** The person who is logged in, on a route whose permission lets nobody else in. @throws WrennError `login_required` */
export function requireSignedIn({ principal }: { readonly principal: Principal | undefined }): SignedInUser {
  if (principal?.type !== 'user') throw new WrennError('login_required');
  return principal;
}
