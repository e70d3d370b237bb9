import type { Actor } from '../access/actor.ts';
import type { RouteDeps } from '../http/route-deps.ts';
import { linkProvider } from './link.ts';
import { putLoginCode } from './login-code.ts';
import { LoginProblem } from './login-problem.ts';
import type { Flow } from './oauth-flow.ts';
import type { LoginProvider } from './provider.ts';
import { findLinkedUser, type ProviderVisit, signUpWithProvider } from './provider-login.ts';

/** What a provider put into the address that it sent the browser back to. */
export interface ProviderAnswer {
  /** All of it. */
  readonly url: URL;
  readonly code: string | undefined;
  readonly error: string | undefined;
}

/**
 * Does what the browser was sent to the provider for.
 *
 * @returns a one-time code to log in with; undefined: it was a link
 * @throws LoginProblem, ProviderError, WrennError
 */
export async function finishFlow(
  { db, settings, tokens }: Pick<RouteDeps, 'db' | 'settings' | 'tokens'>,
  provider: LoginProvider,
  { secrets, purpose, browser }: Flow,
  { url, code, error }: ProviderAnswer,
  someone: Actor,
): Promise<string | undefined> {
  if (error !== undefined) throw new LoginProblem(error === 'access_denied' ? 'access_denied' : 'exchange_failed');
  if (code === undefined) throw new LoginProblem('missing_code');
  const account = await provider.exchange(url, secrets);
  const visit: ProviderVisit = { provider: provider.id, account, someone };
  if (purpose.kind === 'link') {
    await linkProvider(db, purpose, visit);
    return undefined;
  }
  const user =
    purpose.kind === 'login'
      ? await findLinkedUser(db, visit)
      : await signUpWithProvider(db, settings, visit, purpose.invitation);
  const { receiver } = purpose;
  const login = { userId: user.id, method: provider.id };
  return putLoginCode(
    tokens,
    login,
    receiver.kind === 'page' ? { kind: 'browser', hash: browser } : { kind: 'verifier', challenge: receiver.challenge },
  );
}
