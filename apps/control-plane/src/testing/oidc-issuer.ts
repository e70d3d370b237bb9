import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Provider } from 'oidc-provider';
import type { Browser, Visit } from './browser.ts';

/** What an issuer knows of an account, by the name that it logs in with. */
export type OidcAccounts = Record<string, { email?: string; email_verified?: boolean; name?: string }>;

/** An OpenID Connect issuer on a loopback address, with a page to log in and one to consent. */
export class OidcIssuer implements AsyncDisposable {
  readonly clientId = 'wrenn-test';
  readonly clientSecret = randomBytes(20).toString('hex');
  readonly #accounts: OidcAccounts;
  readonly #server = createServer((request, response) => {
    if (!this.#provider || !this.#isServing) response.writeHead(503).end();
    else void this.#provider.callback()(request, response);
  });
  #provider: Provider | undefined;
  #isServing = false;

  private constructor(accounts: OidcAccounts) {
    this.#accounts = accounts;
  }

  /** It does not serve before `serve`. */
  static async start(accounts: OidcAccounts): Promise<OidcIssuer> {
    const issuer = new OidcIssuer(accounts);
    // Its clients keep connections, and would write to one that it has just closed.
    issuer.#server.keepAliveTimeout = 0;
    await new Promise<void>((resolve) => issuer.#server.listen(0, '127.0.0.1', resolve));
    return issuer;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** @param redirectUris where it sends browsers back to */
  serve(redirectUris: string[]): void {
    this.#isServing = true;
    this.#provider ??= new Provider(this.url, {
      clients: [
        {
          client_id: this.clientId,
          client_secret: this.clientSecret,
          redirect_uris: redirectUris,
          grant_types: ['authorization_code'],
          response_types: ['code'],
        },
      ],
      cookies: { keys: [randomBytes(16).toString('hex')] },
      claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
      pkce: { required: () => true },
      findAccount: (_context, id) => ({
        accountId: id,
        claims: () => ({ sub: id, ...this.#accounts[id] }),
      }),
    });
  }

  stopServing(): void {
    this.#isServing = false;
  }

  /** Logs in there and consents, from whatever address leads there, to where it sends the browser back to. */
  async logIn(browser: Browser, url: URL | string, login: string, isEnd: (url: URL) => boolean): Promise<URL> {
    let visit: Visit = await browser.visit(url, isEnd);
    while (visit.answer) {
      const page = await visit.answer.text();
      const prompt = /name="prompt" value="(\w+)"/.exec(page)?.[1];
      if (prompt === undefined) throw new Error(`${visit.url} has nothing to fill in: ${page.slice(0, 300)}`);
      const body = new URLSearchParams({ prompt, ...(prompt === 'login' ? { login, password: 'any' } : {}) });
      visit = await browser.visit(visit.url, isEnd, { method: 'POST', body });
    }
    return visit.url;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
