import { WrennError } from '@wrenn/protocol/errors';
import type { OAuthProblem } from '@wrenn/protocol/rest/oauth';
import { ProviderError } from './provider.ts';

/** Why a login through a provider is none, for the page that the browser is sent to. */
export class LoginProblem extends Error {
  override readonly name = 'LoginProblem';
  readonly problem: OAuthProblem;

  constructor(problem: OAuthProblem) {
    super(`the login ended with ${problem}`);
    this.problem = problem;
  }
}

/** What the page is told of an error; undefined: it is none that a user can meet. */
export function problemOf(error: unknown): OAuthProblem | undefined {
  if (error instanceof LoginProblem) return error.problem;
  if (error instanceof ProviderError) return 'exchange_failed';
  if (!(error instanceof WrennError)) return undefined;
  switch (error.code) {
    case 'account_deactivated':
    case 'sign_up_closed':
    case 'rate_limited':
      return error.code;
    case 'invalid_token':
    case 'invitation_for_other':
      return 'invalid_invitation';
    default:
      return undefined;
  }
}
