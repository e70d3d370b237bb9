import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** An account at the double, as its API tells it. */
export interface GithubAccount {
  readonly id: number;
  readonly login: string;
  readonly name: string | null;
  readonly emails: readonly { readonly email: string; readonly primary: boolean; readonly verified: boolean }[];
}

interface Grant {
  readonly account: GithubAccount;
  readonly redirectUri: string;
  readonly challenge: string;
}

/** What GitHub documents of logging in with it: docs.github.com, "Authorizing OAuth apps" and "REST API: users". */
export class GithubDouble implements AsyncDisposable {
  readonly clientId = 'wrenn-test';
  readonly clientSecret = randomBytes(20).toString('hex');
  /** Who is logged in there; undefined: whoever is asked refuses. */
  account: GithubAccount | undefined;
  /** What is the matter with it. */
  fault: 'none' | 'error-500' | 'no-json' | 'hangs-up' = 'none';
  readonly #server = createServer((request, response) => {
    this.#answer(request, response).catch(() => response.destroy());
  });
  readonly #codes = new Map<string, Grant>();
  readonly #tokens = new Map<string, GithubAccount>();

  static async start(): Promise<GithubDouble> {
    const double = new GithubDouble();
    // Its clients keep connections, and would write to one that it has just closed.
    double.#server.keepAliveTimeout = 0;
    await new Promise<void>((resolve) => double.#server.listen(0, '127.0.0.1', resolve));
    return double;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(
    request: import('node:http').IncomingMessage,
    response: import('node:http').ServerResponse,
  ): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    const json = (body: unknown, status = 200) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    if (url.pathname === '/login/oauth/authorize') {
      response.writeHead(302, { location: this.#authorize(url.searchParams).href }).end();
      return;
    }
    if (this.fault === 'hangs-up') return void response.destroy();
    if (this.fault === 'error-500') return void json({ message: 'Server Error' }, 500);
    if (this.fault === 'no-json') return void response.end('<html>We are having a problem</html>');
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const account = this.#tokens.get(request.headers.authorization?.replace('Bearer ', '') ?? '');
    if (url.pathname === '/login/oauth/access_token' && request.method === 'POST') {
      json(this.#token(new URLSearchParams(Buffer.concat(chunks).toString())));
    } else if (!account) json({ message: 'Bad credentials' }, 401);
    else if (url.pathname === '/user') json({ id: account.id, login: account.login, name: account.name, email: null });
    else if (url.pathname === '/user/emails') json(account.emails.map((email) => ({ ...email, visibility: null })));
    else json({ message: 'Not Found' }, 404);
  }

  #authorize(query: URLSearchParams): URL {
    const target = new URL(query.get('redirect_uri') ?? '');
    target.searchParams.set('state', query.get('state') ?? '');
    if (query.get('client_id') !== this.clientId || query.get('code_challenge_method') !== 'S256') {
      target.searchParams.set('error', 'application_suspended');
    } else if (!this.account) {
      target.searchParams.set('error', 'access_denied');
    } else {
      const code = randomBytes(10).toString('hex');
      const challenge = query.get('code_challenge') ?? '';
      this.#codes.set(code, { account: this.account, redirectUri: query.get('redirect_uri') ?? '', challenge });
      target.searchParams.set('code', code);
    }
    return target;
  }

  /** Refusals have status 200 there. */
  #token(form: URLSearchParams): object {
    if (form.get('client_id') !== this.clientId || form.get('client_secret') !== this.clientSecret) {
      return {
        error: 'incorrect_client_credentials',
        error_description: 'The client_id and/or client_secret is wrong.',
      };
    }
    const grant = this.#codes.get(form.get('code') ?? '');
    this.#codes.delete(form.get('code') ?? '');
    const challenge = createHash('sha256')
      .update(form.get('code_verifier') ?? '')
      .digest('base64url');
    if (!grant || grant.challenge !== challenge || grant.redirectUri !== form.get('redirect_uri')) {
      return { error: 'bad_verification_code', error_description: 'The code passed is incorrect or expired.' };
    }
    const token = `gho_${randomBytes(18).toString('hex')}`;
    this.#tokens.set(token, grant.account);
    return { access_token: token, token_type: 'bearer', scope: 'read:user,user:email' };
  }
}
