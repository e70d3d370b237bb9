import type { AuthBody } from '@wrenn/protocol/rest/auth';
import { ApiError } from '../api/api-error.ts';
import type { ApiClient } from '../api/client.ts';
import type { Cli } from '../cli.ts';
import { note, print } from '../cli.ts';
import { ask } from '../terminal/ask.ts';
import { saveLogin } from './saved-logins.ts';

/** Finishes a login whose account asks for a second factor. `code` as given, else asked for. */
export async function withSecondFactor(
  cli: Cli,
  api: ApiClient,
  code: string | undefined,
  login: () => Promise<AuthBody>,
): Promise<AuthBody> {
  try {
    return await login();
  } catch (error) {
    if (!(error instanceof ApiError) || error.reason !== 'two_factor_required') throw error;
    const given = code ?? (await ask(cli, 'Code of the authenticator, or a recovery code:', '--code'));
    return api.sendSecondFactor(String(error.details.challenge), given, cli.signal);
  }
}

/** Keeps a login for the next commands, and says for whom and for which team it is. */
export function keepLogin(api: ApiClient, auth: AuthBody): void {
  saveLogin(api.connection.baseUrl, auth);
  print(`logged in as ${auth.name} <${auth.email}>`);
  if (auth.team_id === null) note('You are in no team yet: `wrenn team create`, or ask for an invitation.');
}
