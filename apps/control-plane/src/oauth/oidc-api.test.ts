import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Browser } from '../testing/browser.ts';
import { CrookedIssuer, type Crookedness } from '../testing/crooked-issuer.ts';
import { type OidcAccounts, OidcIssuer } from '../testing/oidc-issuer.ts';
import { TestPlatform } from '../testing/test-platform.ts';

const ACCOUNTS: OidcAccounts = {
  grace: { email: 'grace@example.com', email_verified: true, name: 'Grace Hopper' },
  mallory: { email: 'mallory@example.com', email_verified: false, name: 'Mallory' },
  unsaid: { email: 'unsaid@example.com', name: 'Unsaid' },
  nameless: { email: 'nameless@example.com', email_verified: true },
  silent: {},
};

const isLanding = (url: URL) => /^\/auth\/\w+\/callback$/.test(url.pathname);
const codeOf = (url: URL) => new URLSearchParams(url.hash.slice(1)).get('code');

async function exchange(platform: TestPlatform, browser: Browser, landing: URL) {
  return browser.call(`${platform.baseUrl}/v1/auth/exchange`, { json: { code: codeOf(landing) } });
}

describe('an OpenID Connect issuer', () => {
  let issuer: OidcIssuer;
  let platform: TestPlatform;

  /** Both Google and the company's own; each has a client of the same issuer here. */
  beforeAll(async () => {
    issuer = await OidcIssuer.start(ACCOUNTS);
    platform = await TestPlatform.start({
      OAUTH_OIDC_ISSUER: issuer.url,
      OAUTH_OIDC_CLIENT_ID: issuer.clientId,
      OAUTH_OIDC_CLIENT_SECRET: issuer.clientSecret,
      OAUTH_OIDC_NAME: 'Example Inc.',
      OAUTH_GOOGLE_ISSUER: issuer.url,
      OAUTH_GOOGLE_CLIENT_ID: issuer.clientId,
      OAUTH_GOOGLE_CLIENT_SECRET: issuer.clientSecret,
      OAUTH_REDIRECT_URL: 'https://app.example.com/',
      WRENN_RATE_LIMIT_FACTOR: '0',
    });
  });
  afterAll(async () => {
    await platform?.[Symbol.asyncDispose]();
    await issuer?.[Symbol.asyncDispose]();
  });

  beforeEach(serve);

  function serve(): void {
    issuer.serve(['oidc', 'google'].map((id) => `${platform.baseUrl}/auth/oauth/${id}/callback`));
  }

  const visit = (browser: Browser, provider: string, intent: string, login: string) =>
    issuer.logIn(browser, `${platform.baseUrl}/auth/oauth/${provider}?intent=${intent}`, login, isLanding);

  test('that is down is no error of this server, and is asked again later', async () => {
    issuer.stopServing();
    for (const path of ['/auth/oauth/oidc', '/v1/auth/oauth/google?intent=signup']) {
      const { url } = await new Browser().visit(`${platform.baseUrl}${path}`, isLanding);
      expect(url.searchParams.get('error')).toBe('exchange_failed');
    }
    serve();
    const browser = new Browser();
    const landing = await visit(browser, 'oidc', 'signup', 'grace');
    expect(landing.href).toMatch('https://app.example.com/auth/oidc/callback?intent=signup#code=');
    const { status, body } = await exchange(platform, browser, landing);
    expect(status).toBe(200);
    expect(body).toMatchObject({ email: 'grace@example.com', name: 'Grace Hopper', role: 'owner' });

    // Again, with the account that there is.
    const again = await exchange(platform, browser, await visit(browser, 'oidc', 'login', 'grace'));
    expect(again.body.user_id).toBe(body.user_id);
    const other = new Browser();
    const elsewhere = await exchange(platform, other, await visit(other, 'oidc', 'login', 'grace'));
    expect(elsewhere.body.user_id).toBe(body.user_id);
  });

  test('that goes down between its page and ours is no error of this server', async () => {
    const isCallback = ({ pathname }: URL) => pathname === '/auth/oauth/oidc/callback';
    const browser = new Browser();
    const begin = `${platform.baseUrl}/auth/oauth/oidc?intent=login`;
    const callback = await issuer.logIn(browser, begin, 'grace', isCallback);
    issuer.stopServing();
    expect((await browser.visit(callback, isLanding)).url.searchParams.get('error')).toBe('exchange_failed');
    const connect = await browser.call(`${platform.baseUrl}/v1/auth/providers`);
    expect(connect.body.providers).toEqual([
      { id: 'google', name: 'Google', login_path: '/auth/oauth/google' },
      { id: 'oidc', name: 'Example Inc.', login_path: '/auth/oauth/oidc' },
    ]);
  });

  test.each(['mallory', 'unsaid', 'silent'])(
    'does not make an account of an address that is not verified (%s)',
    async (login) => {
      const landing = await visit(new Browser(), 'oidc', 'signup', login);
      expect(landing.searchParams.get('error')).toBe('email_unverified');
    },
  );

  test('that knows no name gets one from the address', async () => {
    const browser = new Browser();
    const { body } = await exchange(platform, browser, await visit(browser, 'google', 'signup', 'nameless'));
    expect(body).toMatchObject({ name: 'nameless', email: 'nameless@example.com' });
    // The same account there, by another provider's name, is another one here.
    const landing = await visit(new Browser(), 'oidc', 'login', 'nameless');
    expect(landing.searchParams.get('error')).toBe('no_account');
  });

  test('that says no is believed', async () => {
    const browser = new Browser();
    const { answer, url } = await browser.visit(`${platform.baseUrl}/auth/oauth/oidc`, isLanding);
    const abort = /href="([^"]+\/abort)"/.exec((await answer?.text()) ?? '')?.[1] ?? '';
    const landing = await browser.visit(new URL(abort, url), isLanding);
    expect(landing.url.searchParams.get('error')).toBe('access_denied');
  });

  test("does not take one provider's answer for another's", async () => {
    const browser = new Browser();
    const isCallback = ({ pathname }: URL) => pathname === '/auth/oauth/oidc/callback';
    const begin = `${platform.baseUrl}/auth/oauth/oidc?intent=login`;
    const callback = await issuer.logIn(browser, begin, 'grace', isCallback);
    callback.pathname = '/auth/oauth/google/callback';
    expect((await browser.visit(callback, isLanding)).url.searchParams.get('error')).toBe('invalid_state');
  });
});

describe('a crooked issuer', () => {
  let issuer: CrookedIssuer;
  let platform: TestPlatform;

  beforeAll(async () => {
    issuer = await CrookedIssuer.start();
    platform = await TestPlatform.start({
      OAUTH_OIDC_ISSUER: issuer.url,
      OAUTH_OIDC_CLIENT_ID: issuer.clientId,
      OAUTH_OIDC_CLIENT_SECRET: issuer.clientSecret,
      WRENN_RATE_LIMIT_FACTOR: '0',
    });
  });
  afterAll(async () => {
    await platform?.[Symbol.asyncDispose]();
    await issuer?.[Symbol.asyncDispose]();
  });
  afterEach(() => {
    issuer.crookedness = {};
  });

  async function signUp(): Promise<URL> {
    return (await new Browser().visit(`${platform.baseUrl}/auth/oauth/oidc?intent=signup`, isLanding)).url;
  }

  test('that names itself otherwise is not believed, and is asked again', async () => {
    issuer.crookedness = { issuer: 'https://accounts.example.com' };
    for (const discoveries of [1, 2]) {
      expect((await signUp()).searchParams.get('error')).toBe('exchange_failed');
      expect(issuer.discoveries).toBe(discoveries);
    }
  });

  const nowS = Math.floor(Date.now() / 1000);
  test.each<[string, Crookedness]>([
    ['another nonce', { claims: { nonce: 'of-another-login' } }],
    ['no nonce', { withoutClaim: 'nonce' }],
    ['another issuer in its token', { claims: { iss: 'https://accounts.example.com' } }],
    ['a token for another client', { claims: { aud: 'somebody-else' } }],
    ['a token for several clients', { claims: { aud: ['wrenn-test', 'somebody-else'], azp: 'somebody-else' } }],
    ['a token that has expired', { claims: { exp: nowS - 600 } }],
    ['a token of nobody', { withoutClaim: 'sub' }],
    ['no token', { withoutIdToken: true }],
    ['a token without a signature', { signature: 'none' }],
    ["somebody else's account at its userinfo endpoint", { userInfoSubject: 'another' }],
    ['another issuer in its answer', { callback: { iss: 'https://accounts.example.com' } }],
    ['another state', { callback: { state: 'of-another-login' } }],
  ])('that gives %s is not believed', async (what, crookedness) => {
    issuer.crookedness = crookedness;
    const landing = await signUp();
    expect(landing.searchParams.get('error')).toBe(what === 'another state' ? 'invalid_state' : 'exchange_failed');
    expect(landing.hash).toBe('');
  });

  test('that is straight for once is believed, and asked about itself once', async () => {
    expect(codeOf(await signUp())).toBeTruthy();
    const { discoveries } = issuer;
    expect(codeOf(await signUp())).toBeTruthy();
    expect(issuer.discoveries).toBe(discoveries);
  });
});
