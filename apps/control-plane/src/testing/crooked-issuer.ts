import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT, UnsecuredJWT } from 'jose';

/** What it puts into its answers in place of what is right. */
export interface Crookedness {
  readonly claims?: JWTPayload;
  readonly withoutClaim?: string;
  /** Signs with a key that it does not publish, or not at all. */
  readonly signature?: 'foreign' | 'none';
  /** In its discovery document. */
  readonly issuer?: string;
  /** Behind the state, in the address of the callback. */
  readonly callback?: Record<string, string>;
  /** An ID token is not in the answer. */
  readonly withoutIdToken?: boolean;
  /** In place of the subject at its userinfo endpoint. */
  readonly userInfoSubject?: string;
}

const AUDIENCE = 'wrenn-test';

/** An issuer of OpenID Connect that does as little as it can, and that wrongly where a test asks for it. */
export class CrookedIssuer implements AsyncDisposable {
  readonly clientId = AUDIENCE;
  readonly clientSecret = 'a-secret-of-the-client';
  crookedness: Crookedness = {};
  /** How often its discovery document was asked for. */
  discoveries = 0;
  readonly #keys = generateKeyPair('RS256');
  readonly #foreign = generateKeyPair('RS256');
  #nonce = '';
  readonly #server = createServer((request, response) => {
    this.#answer(new URL(request.url ?? '/', this.url)).then(
      ({ location, body }) => {
        if (location) response.writeHead(302, { location }).end();
        else response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
      },
      () => response.destroy(),
    );
  });

  static async start(): Promise<CrookedIssuer> {
    const issuer = new CrookedIssuer();
    // Its clients keep connections, and would write to one that it has just closed.
    issuer.#server.keepAliveTimeout = 0;
    await new Promise<void>((resolve) => issuer.#server.listen(0, '127.0.0.1', resolve));
    return issuer;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(url: URL): Promise<{ location?: string; body?: unknown }> {
    switch (url.pathname) {
      case '/.well-known/openid-configuration':
        this.discoveries += 1;
        return { body: this.#metadata() };
      case '/jwks': {
        const { publicKey } = await this.#keys;
        return { body: { keys: [{ ...(await exportJWK(publicKey)), alg: 'RS256', use: 'sig', kid: 'one' }] } };
      }
      case '/authorize': {
        const target = new URL(url.searchParams.get('redirect_uri') ?? '');
        this.#nonce = url.searchParams.get('nonce') ?? '';
        const state = url.searchParams.get('state') ?? '';
        target.search = new URLSearchParams({
          state,
          code: 'code',
          iss: this.url,
          ...this.crookedness.callback,
        }).toString();
        return { location: target.href };
      }
      case '/token': {
        const idToken = this.crookedness.withoutIdToken ? {} : { id_token: await this.#idToken() };
        return { body: { access_token: 'access', token_type: 'Bearer', expires_in: 60, ...idToken } };
      }
      case '/userinfo': {
        const sub = this.crookedness.userInfoSubject ?? 'crooked';
        return { body: { sub, email: 'crooked@example.com', email_verified: true } };
      }
      default:
        throw new Error(`there is no ${url.pathname}`);
    }
  }

  #metadata() {
    return {
      issuer: this.crookedness.issuer ?? this.url,
      authorization_endpoint: `${this.url}/authorize`,
      token_endpoint: `${this.url}/token`,
      jwks_uri: `${this.url}/jwks`,
      userinfo_endpoint: `${this.url}/userinfo`,
      response_types_supported: ['code'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['RS256'],
      authorization_response_iss_parameter_supported: true,
    };
  }

  async #idToken(): Promise<string> {
    const { claims, withoutClaim, signature } = this.crookedness;
    const now = Math.floor(Date.now() / 1000);
    const right = { iss: this.url, aud: AUDIENCE, sub: 'crooked', nonce: this.#nonce, iat: now, exp: now + 60 };
    const said = Object.entries({ ...right, ...claims }).filter(([name]) => name !== withoutClaim);
    const payload = Object.fromEntries(said);
    if (signature === 'none') return new UnsecuredJWT(payload).encode();
    const { privateKey } = await (signature === 'foreign' ? this.#foreign : this.#keys);
    return new SignJWT(payload).setProtectedHeader({ alg: 'RS256', kid: 'one' }).sign(privateKey);
  }
}
