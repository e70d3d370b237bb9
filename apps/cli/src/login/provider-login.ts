import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AuthBody } from '@wrenn/protocol/rest/auth';
import type { ApiClient } from '../api/client.ts';
import { withTimeout } from '../api/http.ts';
import { type Cli, note } from '../cli.ts';
import { CliError } from '../cli-error.ts';
import { startProgress } from '../terminal/progress.ts';

/** A person has to find a browser, a password and a phone. */
const BROWSER_TIMEOUT_MS = 10 * 60_000;

export interface ProviderLogin {
  readonly provider: string;
  readonly intent: 'login' | 'signup';
  readonly invitation?: string | undefined;
}

/**
 * Logs in through a provider in a browser of this machine, which ends at a port of ours (RFC 8252). The code that it
 * brings is worth nothing without the verifier that only this process knows.
 *
 * @throws CliError when the provider or the person says no; ApiError as a login does
 */
export async function logInWithProvider(cli: Cli, api: ApiClient, login: ProviderLogin): Promise<AuthBody> {
  await requireProvider(cli, api, login.provider);
  const state = randomBytes(16).toString('base64url');
  const verifier = randomBytes(32).toString('base64url');
  const answer = Promise.withResolvers<URLSearchParams>();
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://127.0.0.1');
    const isOurs = pathname === '/callback' && searchParams.get('state') === state;
    response.writeHead(isOurs ? 200 : 404, { 'content-type': 'text/plain; charset=utf-8', connection: 'close' });
    response.end(isOurs ? 'Done. You can close this page and go back to the terminal.\n' : 'Nothing is here.\n');
    if (isOurs) answer.resolve(searchParams);
  });
  const signal = withTimeout(cli.signal, BROWSER_TIMEOUT_MS);
  const abort = () => answer.reject(signal.reason);
  try {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening', { signal });
    signal.addEventListener('abort', abort);
    note(
      `Open this in a browser of this machine:\n  ${addressOf(api, login, portOf(server.address()), state, verifier)}`,
    );
    using _ = startProgress('waiting for the browser');
    const params = await answer.promise;
    const code = params.get('code');
    if (!code) throw refused(login.provider, params.get('error') ?? 'no code');
    return await api.exchangeCode(code, verifier, cli.signal);
  } catch (error) {
    cli.signal.throwIfAborted();
    if (signal.aborted) throw new CliError('Nobody logged in within 10 minutes.', 'Run it again.');
    throw error;
  } finally {
    signal.removeEventListener('abort', abort);
    server.close();
  }
}

async function requireProvider(cli: Cli, api: ApiClient, wanted: string): Promise<void> {
  const { providers } = await api.loginMethods(cli.signal);
  if (providers.some(({ id }) => id === wanted)) return;
  const known = providers.map(({ id }) => id).join(', ');
  throw new CliError(
    `Nobody can log in to ${api.connection.baseUrl} with ${wanted}.`,
    known === '' ? 'No provider is set up there: log in with a password.' : `It takes: ${known}.`,
  );
}

function addressOf(api: ApiClient, login: ProviderLogin, port: number, state: string, verifier: string): string {
  const query = new URLSearchParams({
    intent: login.intent,
    cli_port: String(port),
    cli_state: state,
    cli_challenge: createHash('sha256').update(verifier).digest('base64url'),
    ...(login.invitation ? { invitation: login.invitation } : {}),
  });
  return `${api.connection.baseUrl}/auth/oauth/${encodeURIComponent(login.provider)}?${query}`;
}

function portOf(address: ReturnType<ReturnType<typeof createServer>['address']>): number {
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  return address.port;
}

function refused(provider: string, reason: string): CliError {
  const words: Readonly<Record<string, readonly [string, string]>> = {
    no_account: ['has no account here', 'Sign up with `wrenn signup --provider`, or link it to your account first.'],
    email_taken: ['has an address that another account has', 'Log in to that account, and link the provider there.'],
    access_denied: ['said no', 'Allow it on the page of the provider.'],
  };
  const [what, remedy] = words[reason] ?? [`did not log you in (${reason})`, 'Try again, or log in another way.'];
  return new CliError(`${provider} ${what}.`, remedy);
}
