import { createHash, randomBytes } from 'node:crypto';
import type { OAuthProblem } from '@wrenn/protocol/rest/oauth';
import { Client } from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Browser } from '../testing/browser.ts';
import { type GithubAccount, GithubDouble } from '../testing/github-double.ts';
import { TestPlatform } from '../testing/test-platform.ts';

let github: GithubDouble;
let platform: TestPlatform;
let database: Client;

beforeAll(async () => {
  github = await GithubDouble.start();
  platform = await TestPlatform.start({
    OAUTH_GITHUB_CLIENT_ID: github.clientId,
    OAUTH_GITHUB_CLIENT_SECRET: github.clientSecret,
    OAUTH_GITHUB_URL: github.url,
    OAUTH_GITHUB_API_URL: github.url,
    WRENN_RATE_LIMIT_FACTOR: '0',
  });
  database = new Client(platform.databaseUrl);
  await database.connect();
});
afterAll(async () => {
  await database?.end();
  await platform?.[Symbol.asyncDispose]();
  await github?.[Symbol.asyncDispose]();
});
beforeEach(() => {
  github.account = undefined;
  github.fault = 'none';
});

/** An account at GitHub that nobody has used yet. */
function newAccount(changes: Partial<GithubAccount> = {}): GithubAccount {
  const login = `ada-${randomBytes(4).toString('hex')}`;
  return {
    id: randomBytes(4).readUInt32BE(),
    login,
    name: 'Ada Lovelace',
    emails: [
      { email: `other-${login}@example.com`, primary: false, verified: true },
      { email: `${login}@example.com`, primary: true, verified: true },
    ],
    ...changes,
  };
}

const isLanding = (url: URL) => /^\/auth\/\w+\/callback$/.test(url.pathname);
const codeOf = (url: URL) => new URLSearchParams(url.hash.slice(1)).get('code');

/** Goes to GitHub and comes back. @returns where the browser ends */
async function visit(browser: Browser, query: string): Promise<URL> {
  return (await browser.visit(`${platform.baseUrl}/auth/oauth/github?${query}`, isLanding)).url;
}

function exchange(browser: Browser, code: string | null, verifier?: string) {
  return browser.call(`${platform.baseUrl}/v1/auth/exchange`, { json: { code, ...(verifier ? { verifier } : {}) } });
}

async function signUp(browser: Browser, account: GithubAccount) {
  github.account = account;
  const { status, body } = await exchange(browser, codeOf(await visit(browser, 'intent=signup')));
  expect(status).toBe(200);
  return body;
}

function problemOf(landing: URL): OAuthProblem | null {
  expect(landing.hash).toBe('');
  return landing.searchParams.get('error') as OAuthProblem | null;
}

async function me(token: string) {
  return (await new Browser().call(`${platform.baseUrl}/v1/me`, { token })).body;
}

async function auditOf(userId: string): Promise<string[]> {
  const { rows } = await database.query(
    `SELECT resource_type || ':' || action AS what FROM audit_log WHERE actor_id = $1 AND scope = 'platform' ORDER BY created_at`,
    [userId],
  );
  return rows.map(({ what }) => what);
}

describe('signing up', () => {
  test('makes an active account with a team of its own, and logs in', async () => {
    const browser = new Browser();
    const account = newAccount();
    github.account = account;
    const landing = await visit(browser, 'intent=signup');
    expect(landing.href).toMatch(`${platform.baseUrl}/auth/github/callback?intent=signup#code=`);
    const { status, body } = await exchange(browser, codeOf(landing));
    expect(status).toBe(200);
    expect(body).toMatchObject({ email: `${account.login}@example.com`, name: 'Ada Lovelace', role: 'owner' });
    expect(await me(body.token)).toMatchObject({ providers: ['github'], has_password: false, team_id: body.team_id });
    expect(await auditOf(body.user_id)).toEqual(['user:sign_up', 'session:login']);
    // The cookie logs pages of this server in.
    expect((await browser.call(`${platform.baseUrl}/v1/me`)).body.user_id).toBe(body.user_id);
  });

  test('logs in whoever has an account already', async () => {
    const browser = new Browser();
    const account = newAccount();
    const first = await signUp(browser, account);
    expect((await signUp(browser, account)).user_id).toBe(first.user_id);
  });

  test('refuses an address that has an account, in whatever case it is written', async () => {
    const account = newAccount();
    await signUp(new Browser(), account);
    github.account = newAccount({
      emails: [{ email: `${account.login}@example.com`.toUpperCase(), primary: true, verified: true }],
    });
    expect(problemOf(await visit(new Browser(), 'intent=signup'))).toBe('email_taken');
    expect(problemOf(await visit(new Browser(), 'intent=login'))).toBe('no_account');
  });

  test('refuses an address that GitHub has not verified', async () => {
    const account = newAccount();
    github.account = {
      ...account,
      emails: [
        { email: `${account.login}@example.com`, primary: true, verified: false },
        { email: `other-${account.login}@example.com`, primary: false, verified: true },
      ],
    };
    expect(problemOf(await visit(new Browser(), 'intent=signup'))).toBe('email_unverified');
  });

  test('takes the address from a sign-up that nobody activated', async () => {
    const account = newAccount();
    const email = `${account.login}@example.com`;
    const { status } = await platform.call('/v1/auth/signup', {
      json: { email, password: 'not the owner of it', name: 'Mallory' },
    });
    expect(status).toBe(201);
    const { user_id } = await signUp(new Browser(), account);
    const login = await platform.call('/v1/auth/login', { json: { email, password: 'not the owner of it' } });
    expect(login.status).toBe(401);
    const { rows } = await database.query('SELECT id FROM users WHERE email = $1', [email]);
    expect(rows).toEqual([{ id: user_id }]);
  });

  test('enters the team of an invitation', async () => {
    const owner = await signUp(new Browser(), newAccount());
    const made = await new Browser().call(`${platform.baseUrl}/v1/teams/${owner.team_id}/invitations`, {
      json: { role: 'admin' },
      token: owner.token,
    });
    expect(made.status).toBe(201);
    const browser = new Browser();
    github.account = newAccount();
    const query = new URLSearchParams({ intent: 'signup', invitation: made.body.token });
    const { body } = await exchange(browser, codeOf(await visit(browser, query.toString())));
    expect(body).toMatchObject({ team_id: owner.team_id, role: 'admin' });
    github.account = newAccount();
    expect(problemOf(await visit(new Browser(), query.toString()))).toBe('invalid_invitation');
    // Nothing is left of it.
    expect(problemOf(await visit(new Browser(), 'intent=login'))).toBe('no_account');
  });

  test('two at the same moment make one account', async () => {
    const account = newAccount();
    github.account = account;
    const landings = await Promise.all([1, 2, 3].map(() => visit(new Browser(), 'intent=signup')));
    expect(landings.filter((landing) => codeOf(landing))).not.toHaveLength(0);
    const { rows } = await database.query('SELECT id FROM users WHERE lower(email) = lower($1)', [
      `${account.login}@example.com`,
    ]);
    expect(rows).toHaveLength(1);
  });
});

describe('logging in', () => {
  test('an unknown account does not become one', async () => {
    github.account = newAccount();
    const landing = await visit(new Browser(), 'intent=login');
    expect(problemOf(landing)).toBe('no_account');
    expect(landing.searchParams.get('intent')).toBe('login');
    expect(problemOf(await visit(new Browser(), ''))).toBe('no_account');
  });

  test('works below /v1 too', async () => {
    const browser = new Browser();
    const { user_id } = await signUp(browser, newAccount());
    const { url } = await browser.visit(`${platform.baseUrl}/v1/auth/oauth/github?intent=login`, isLanding);
    expect((await exchange(browser, codeOf(url))).body.user_id).toBe(user_id);
    const answer = await browser.request(`${platform.baseUrl}/v1/auth/oauth/github/callback?state=x&code=y`);
    expect(answer.status).toBe(302);
    expect(answer.headers.get('location')).toContain('error=invalid_state');
  });

  test.each([
    ['disabled', 'account_deactivated'],
    ['deleted', 'account_deactivated'],
  ])('an account that is %s does not log in', async (status, problem) => {
    const account = newAccount();
    const { user_id } = await signUp(new Browser(), account);
    await database.query('UPDATE users SET status = $1 WHERE id = $2', [status, user_id]);
    expect(problemOf(await visit(new Browser(), 'intent=login'))).toBe(problem);
    expect(problemOf(await visit(new Browser(), 'intent=signup'))).toBe(problem);
  });

  test('an account that is disabled while its code is under way does not log in', async () => {
    const browser = new Browser();
    const { user_id } = await signUp(browser, newAccount());
    const code = codeOf(await visit(browser, 'intent=login'));
    await database.query("UPDATE users SET status = 'disabled' WHERE id = $1", [user_id]);
    expect(await exchange(browser, code)).toMatchObject({
      status: 403,
      body: { error: { reason: 'account_deactivated' } },
    });
  });

  test('who refuses at GitHub is told so', async () => {
    expect(problemOf(await visit(new Browser(), 'intent=login'))).toBe('access_denied');
  });

  test.each(['error-500', 'no-json', 'hangs-up'] as const)(
    'a provider with %s is no error of this server',
    async (fault) => {
      github.account = newAccount();
      github.fault = fault;
      expect(problemOf(await visit(new Browser(), 'intent=signup'))).toBe('exchange_failed');
    },
  );

  test('an unknown provider is not found', async () => {
    for (const path of ['/auth/oauth/myspace', '/auth/oauth/google', '/v1/auth/oauth/oidc/callback?code=1&state=2']) {
      expect(await platform.call(path)).toMatchObject({ status: 404, body: { error: { code: 'provider_not_found' } } });
    }
  });

  test('providers are listed for the login page', async () => {
    const { body } = await platform.call('/v1/auth/providers');
    expect(body.providers).toEqual([{ id: 'github', name: 'GitHub', login_path: '/auth/oauth/github' }]);
  });
});

describe('what comes back from GitHub', () => {
  /** Goes to GitHub and stops before its answer is followed. */
  async function callbackUrl(browser: Browser): Promise<URL> {
    const isCallback = ({ pathname }: URL) => pathname === '/auth/oauth/github/callback';
    return (await browser.visit(`${platform.baseUrl}/auth/oauth/github?intent=signup`, isCallback)).url;
  }

  async function follow(browser: Browser, url: URL | string): Promise<URL> {
    return (await browser.visit(url, isLanding)).url;
  }

  beforeEach(() => {
    github.account = newAccount();
  });

  test('is taken once', async () => {
    const browser = new Browser();
    const url = await callbackUrl(browser);
    expect(codeOf(await follow(browser, url))).toBeTruthy();
    expect(problemOf(await follow(browser, url))).toBe('invalid_state');
  });

  test('is taken once, however often it comes at the same moment', async () => {
    const browser = new Browser();
    const url = await callbackUrl(browser);
    const landings = await Promise.all([1, 2, 3, 4].map(() => follow(browser, url)));
    expect(landings.filter((landing) => codeOf(landing))).toHaveLength(1);
  });

  test('is not taken in another browser, and then in none', async () => {
    const browser = new Browser();
    const url = await callbackUrl(browser);
    const other = new Browser();
    expect(problemOf(await follow(other, url))).toBe('invalid_state');
    const third = new Browser();
    await callbackUrl(third);
    const again = await callbackUrl(browser);
    expect(problemOf(await follow(third, again))).toBe('invalid_state');
    expect(problemOf(await follow(browser, again))).toBe('invalid_state');
  });

  test.each([
    ['without a state', (url: URL) => url.searchParams.delete('state'), 'invalid_state'],
    ['with another state', (url: URL) => url.searchParams.set('state', 'x'.repeat(43)), 'invalid_state'],
    ['without a code', (url: URL) => url.searchParams.delete('code'), 'missing_code'],
    ['with another code', (url: URL) => url.searchParams.set('code', 'abc'), 'exchange_failed'],
    ['with an error', (url: URL) => url.searchParams.set('error', 'server_error'), 'exchange_failed'],
    ['with two states', (url: URL) => url.searchParams.append('state', 'y'), 'invalid_state'],
  ] as const)('%s is refused', async (_what, change, problem) => {
    const browser = new Browser();
    const url = await callbackUrl(browser);
    change(url);
    expect(problemOf(await follow(browser, url))).toBe(problem);
  });

  test('is not taken when it is late', async () => {
    const browser = new Browser();
    const url = await callbackUrl(browser);
    await database.query(
      "UPDATE one_time_tokens SET expires_at = now() - interval '1 second' WHERE purpose = 'oauth_state'",
    );
    expect(problemOf(await follow(browser, url))).toBe('invalid_state');
  });

  test('is taken by another control plane of the platform too', async () => {
    await using another = await platform.startAnother();
    const browser = new Browser();
    const url = await callbackUrl(browser);
    url.port = String(another.port);
    const landing = await follow(browser, url);
    expect((await exchange(browser, codeOf(landing))).status).toBe(200);
  });

  test('sets nothing that scripts can read', async () => {
    const browser = new Browser();
    const begun = await browser.request(`${platform.baseUrl}/auth/oauth/github?intent=signup`);
    const back = await browser.visit(begun.headers.get('location') ?? '', isLanding);
    const done = await exchange(browser, codeOf(back.url));
    const cookies = [...begun.headers.getSetCookie(), ...done.headers.getSetCookie()];
    expect(cookies.length).toBeGreaterThan(1);
    for (const cookie of cookies.filter((line) => !/expires=Thu, 01 Jan 1970/i.test(line))) {
      expect(cookie).toMatch(/HttpOnly/);
      expect(cookie).toMatch(/SameSite=Lax/);
    }
  });
});

describe('the code of a login', () => {
  test('works once', async () => {
    const browser = new Browser();
    await signUp(browser, newAccount());
    const code = codeOf(await visit(browser, 'intent=login'));
    const answers = await Promise.all([1, 2, 3, 4].map(() => exchange(browser, code)));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 400, 400, 400]);
    expect((await exchange(browser, code)).body.error.reason).toBe('invalid_token');
  });

  test('is of no use in another browser', async () => {
    const browser = new Browser();
    await signUp(browser, newAccount());
    const code = codeOf(await visit(browser, 'intent=login'));
    const other = new Browser();
    github.account = newAccount();
    await visit(other, 'intent=signup');
    expect((await exchange(other, code)).status).toBe(400);
    expect((await exchange(browser, code)).status).toBe(400);
  });

  test('expires after a minute', async () => {
    const browser = new Browser();
    await signUp(browser, newAccount());
    const code = codeOf(await visit(browser, 'intent=login'));
    await database.query(
      "UPDATE one_time_tokens SET expires_at = expires_at - interval '60 seconds' WHERE purpose = 'login_code'",
    );
    expect((await exchange(browser, code)).status).toBe(400);
  });
});

describe('a program that logs in', () => {
  const verifier = randomBytes(32).toString('base64url');
  const challenge = createHash('sha256').update(verifier).digest('base64url');
  const query = { intent: 'login', cli_port: '49152', cli_state: 'mine', cli_challenge: challenge };

  async function toProgram(account: GithubAccount, changes: Record<string, string> = {}): Promise<URL> {
    github.account = account;
    const search = new URLSearchParams({ ...query, ...changes });
    const isEnd = ({ port }: URL) => port === '49152';
    return (await new Browser().visit(`${platform.baseUrl}/auth/oauth/github?${search}`, isEnd)).url;
  }

  test('gets a code at its port, which it exchanges with its verifier', async () => {
    const account = newAccount();
    const { user_id } = await signUp(new Browser(), account);
    const url = await toProgram(account);
    expect(url.href).toMatch(/^http:\/\/127\.0\.0\.1:49152\/callback\?/);
    expect(url.searchParams.get('state')).toBe('mine');
    const { status, body } = await exchange(new Browser(), url.searchParams.get('code'), verifier);
    expect({ status, user_id: body.user_id }).toEqual({ status: 200, user_id });
  });

  test.each([undefined, randomBytes(32).toString('base64url')])(
    'without its verifier (%s) the code is lost',
    async (wrong) => {
      const account = newAccount();
      await signUp(new Browser(), account);
      const code = (await toProgram(account)).searchParams.get('code');
      expect((await exchange(new Browser(), code, wrong)).body.error.reason).toBe('invalid_token');
      expect((await exchange(new Browser(), code, verifier)).status).toBe(400);
    },
  );

  test('is told what went wrong', async () => {
    const url = await toProgram(newAccount());
    expect(Object.fromEntries(url.searchParams)).toEqual({ error: 'no_account', state: 'mine' });
  });

  test.each([
    { cli_challenge: '' },
    { cli_challenge: 'short' },
    { cli_state: '' },
    { cli_state: 'a\0b' },
    { invitation: 'a\0b' },
    { cli_port: '80' },
    { cli_port: '127.0.0.1' },
    { cli_port: '49152/evil' },
    { intent: 'other' },
  ])('is refused with %o', async (changes) => {
    const search = new URLSearchParams({ ...query, ...changes });
    expect((await platform.call(`/auth/oauth/github?${search}`)).status).toBe(400);
  });
});

describe('linking', () => {
  /** Somebody with a password, or what comes nearest: an account whose provider is taken away in the database. */
  async function somebody(hasPassword = true) {
    const browser = new Browser();
    const auth = await signUp(browser, newAccount());
    if (hasPassword) {
      await database.query("UPDATE users SET password_hash = 'set' WHERE id = $1", [auth.user_id]);
      await database.query('DELETE FROM identities WHERE user_id = $1', [auth.user_id]);
    }
    return { browser, auth };
  }

  async function connect(browser: Browser): Promise<URL> {
    const { body } = await browser.call(`${platform.baseUrl}/v1/me/providers/github/connect`);
    return (await browser.visit(body.auth_url, isLanding)).url;
  }

  async function unlink(browser: Browser): Promise<{ status: number; reason: string | undefined }> {
    const { status, body } = await browser.call(`${platform.baseUrl}/v1/me/providers/github`, { method: 'DELETE' });
    return { status, reason: body?.error.reason };
  }

  test('lets the account at GitHub log in, until it is unlinked', async () => {
    const { browser, auth } = await somebody();
    const account = newAccount();
    github.account = account;
    const landing = await connect(browser);
    expect(landing.search).toBe('?intent=link');
    expect((await me(auth.token)).providers).toEqual(['github']);
    const other = new Browser();
    expect((await exchange(other, codeOf(await visit(other, 'intent=login')))).body.user_id).toBe(auth.user_id);
    // Once more changes nothing.
    expect(problemOf(await connect(browser))).toBe(null);
    expect((await unlink(browser)).status).toBe(204);
    expect(problemOf(await visit(new Browser(), 'intent=login'))).toBe('no_account');
    expect(await unlink(browser)).toEqual({ status: 404, reason: 'not_found' });
    const audit = await auditOf(auth.user_id);
    expect(audit.filter((what) => what.startsWith('provider:'))).toEqual(['provider:link', 'provider:unlink']);
  });

  test('refuses an account at GitHub that somebody else has', async () => {
    const taken = newAccount();
    await signUp(new Browser(), taken);
    const { browser, auth } = await somebody();
    github.account = taken;
    expect(problemOf(await connect(browser))).toBe('identity_taken');
    expect((await me(auth.token)).providers).toEqual([]);
  });

  test('refuses a second account at GitHub', async () => {
    const { browser } = await somebody(false);
    github.account = newAccount();
    expect(problemOf(await connect(browser))).toBe('already_linked');
  });

  test('keeps the last way to log in', async () => {
    const { browser, auth } = await somebody(false);
    expect(await unlink(browser)).toEqual({ status: 400, reason: 'last_login_method' });
    // A provider that this platform is not set up for is no way either.
    await database.query("INSERT INTO identities (provider, subject, user_id) VALUES ('google', $1, $1)", [
      auth.user_id,
    ]);
    expect(await unlink(browser)).toEqual({ status: 400, reason: 'last_login_method' });
  });

  test('ends with the session that began it', async () => {
    const { browser, auth } = await somebody();
    github.account = newAccount();
    const { auth_url } = (await browser.call(`${platform.baseUrl}/v1/me/providers/github/connect`)).body;
    await database.query('UPDATE sessions SET revoked_at = now() WHERE id = $1', [auth.session_id]);
    expect(problemOf((await browser.visit(auth_url, isLanding)).url)).toBe('invalid_state');
  });

  test('is not finished by another browser', async () => {
    const { browser, auth } = await somebody();
    github.account = newAccount();
    const { auth_url } = (await browser.call(`${platform.baseUrl}/v1/me/providers/github/connect`)).body;
    expect(problemOf((await new Browser().visit(auth_url, isLanding)).url)).toBe('invalid_state');
    expect((await me(auth.token)).providers).toEqual([]);
  });

  test('needs a login', async () => {
    expect((await fetch(`${platform.baseUrl}/v1/me/providers/github/connect`)).status).toBe(401);
    expect((await platform.call('/v1/me/providers/github/connect')).body.error.reason).toBe('login_required');
  });
});
