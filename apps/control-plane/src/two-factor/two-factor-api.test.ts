import { randomBytes } from 'node:crypto';
import { dirname } from 'node:path';
import type { AuthBody } from '@wrenn/protocol/rest/auth';
import { until } from '@wrenn/testing/until';
import { eq } from 'drizzle-orm';
import { TOTP, URI } from 'otpauth';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import type { Db } from '../database/database.ts';
import { oneTimeTokens, recoveryCodes, users } from '../database/people-schema.ts';
import type { LoginExchange } from '../identity/complete-login.ts';
import { FAILURES_TO_LOCK } from '../identity/lock-out.ts';
import { openSecrets } from '../secrets/secrets.ts';
import { Browser } from '../testing/browser.ts';
import { GithubDouble } from '../testing/github-double.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { PASSWORD, Visitor } from '../testing/visitor.ts';
import { loginWithSecondFactor } from './two-factor-login.ts';

let github: GithubDouble;
let platform: TestPlatform;
let people: TestPeople;
let visitor: Visitor;
beforeAll(async () => {
  github = await GithubDouble.start();
  platform = await TestPlatform.start({
    OAUTH_GITHUB_CLIENT_ID: github.clientId,
    OAUTH_GITHUB_CLIENT_SECRET: github.clientSecret,
    OAUTH_GITHUB_URL: github.url,
    OAUTH_GITHUB_API_URL: github.url,
  });
  people = await TestPeople.of(platform);
  visitor = new Visitor(platform, people);
});
afterAll(async () => {
  await people?.[Symbol.asyncDispose]();
  await platform?.[Symbol.asyncDispose]();
  await github?.[Symbol.asyncDispose]();
});

/** Somebody with an authenticator. */
interface Holder {
  readonly auth: AuthBody;
  readonly totp: TOTP;
  readonly recoveryCodes: string[];
}

async function arrive(): Promise<AuthBody> {
  return visitor.arrive(`ada-${randomBytes(6).toString('hex')}@example.com`);
}

async function begin({ token }: AuthBody): Promise<TOTP> {
  const { status, body } = await visitor.call('/v1/me/two-factor', { method: 'POST', token });
  expect(status).toBe(200);
  const totp = URI.parse(body.otpauth_uri);
  if (!(totp instanceof TOTP)) throw new Error(`${body.otpauth_uri} is not for TOTP`);
  expect(totp.secret.base32).toBe(body.secret);
  return totp;
}

function confirm({ token }: AuthBody, code: string) {
  return visitor.call('/v1/me/two-factor/confirm', { json: { code }, token });
}

/** Somebody whose two-factor authentication is on, some time ago. */
async function arriveWithTwoFactor(): Promise<Holder> {
  const auth = await arrive();
  const totp = await begin(auth);
  const { status, body } = await confirm(auth, totp.generate());
  expect(status).toBe(200);
  await letTimePass(auth);
  return { auth, totp, recoveryCodes: body.recovery_codes };
}

/** As if the last code that was taken were of long ago. */
async function letTimePass({ user_id }: AuthBody): Promise<void> {
  await people.db.update(users).set({ totpLastStep: 0 }).where(eq(users.id, user_id));
}

async function challengeFor({ email }: AuthBody): Promise<string> {
  const { status, body } = await visitor.logIn(email);
  expect({ status, reason: body.error.reason }).toEqual({ status: 401, reason: 'two_factor_required' });
  return body.error.details.challenge;
}

function answer(challenge: string, code: string) {
  return visitor.call('/v1/auth/two-factor', { json: { challenge, code } });
}

/** A code that the authenticator does not show now, nor a minute before or after. */
function wrongCode(totp: TOTP): string {
  const near = [-60_000, -30_000, 0, 30_000, 60_000].map((ms) => totp.generate({ timestamp: Date.now() + ms }));
  const wrong = ['000000', '111111', '222222', '333333', '444444', '555555'].find((code) => !near.includes(code));
  if (wrong === undefined) throw new Error('six codes cannot all be near');
  return wrong;
}

async function auditOf({ user_id }: AuthBody): Promise<string[]> {
  const rows = await people.db.select().from(auditLog).where(eq(auditLog.actorId, user_id)).orderBy(auditLog.createdAt);
  return rows.filter(({ resourceType }) => resourceType === 'two_factor').map(({ action }) => action);
}

async function userOf({ user_id }: AuthBody) {
  const [user] = await people.db.select().from(users).where(eq(users.id, user_id));
  if (!user) throw new Error(`${user_id} is gone`);
  return user;
}

describe('setting it up', () => {
  it('changes nothing before a code confirms it, and gives recovery codes then', async () => {
    const auth = await arrive();
    const totp = await begin(auth);
    expect(totp).toMatchObject({ issuer: 'Wrenn (127.0.0.1)', label: auth.email, period: 30, digits: 6 });
    expect((await visitor.logIn(auth.email)).status).toBe(200);
    expect((await confirm(auth, wrongCode(totp))).body.error.reason).toBe('wrong_code');
    expect((await visitor.call('/v1/me', { token: auth.token })).body.two_factor).toBe(false);

    const { status, body } = await confirm(auth, totp.generate());
    expect(status).toBe(200);
    expect(new Set(body.recovery_codes).size).toBe(10);
    for (const code of body.recovery_codes) expect(code).toMatch(/^[a-z2-9]{4}(-[a-z2-9]{4}){3}$/);
    expect((await visitor.call('/v1/me', { token: auth.token })).body.two_factor).toBe(true);
    await challengeFor(auth);
    expect(await visitor.mailsTo(auth.email)).toContain('two_factor_changed');
    expect(await auditOf(auth)).toEqual(['enable']);
  });

  it('keeps neither the secret nor the recovery codes readable', async () => {
    const { auth, totp, recoveryCodes: codes } = await arriveWithTwoFactor();
    const { totpSecret } = await userOf(auth);
    expect(totpSecret).not.toContain(totp.secret.base32);
    const kept = await people.db.select().from(recoveryCodes).where(eq(recoveryCodes.userId, auth.user_id));
    expect(kept).toHaveLength(10);
    const text = JSON.stringify(kept);
    for (const code of codes) expect(text).not.toContain(code.replaceAll('-', ''));
  });

  it('can be begun anew, and then only the newer secret counts', async () => {
    const auth = await arrive();
    const old = await begin(auth);
    const totp = await begin(auth);
    expect((await confirm(auth, old.generate())).body.error.reason).toBe('wrong_code');
    expect((await confirm(auth, totp.generate())).status).toBe(200);
  });

  it('is refused when it is on, and without having been begun', async () => {
    const { auth, totp } = await arriveWithTwoFactor();
    const again = await visitor.call('/v1/me/two-factor', { method: 'POST', token: auth.token });
    expect([again.status, again.body.error.reason]).toEqual([409, 'two_factor_on']);
    expect((await confirm(auth, totp.generate())).body.error.reason).toBe('two_factor_on');
    const other = await arrive();
    expect((await confirm(other, '123456')).body.error.reason).toBe('two_factor_off');
  });

  it('takes one of several confirmations at the same moment', async () => {
    const auth = await arrive();
    const totp = await begin(auth);
    const answers = await Promise.all([1, 2, 3, 4].map(() => confirm(auth, totp.generate())));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409, 409, 409]);
  });
});

describe('a login', () => {
  it('is complete with a code of the authenticator', async () => {
    const { auth, totp } = await arriveWithTwoFactor();
    const { status, body, headers } = await answer(await challengeFor(auth), totp.generate());
    expect(status).toBe(200);
    expect(body).toMatchObject({ user_id: auth.user_id, team_id: auth.team_id, role: 'owner' });
    expect(headers.get('set-cookie')).toMatch(/^wrenn_session=.*HttpOnly/);
    const sessions = (await visitor.call('/v1/me/sessions', { token: body.token })).body;
    expect(JSON.stringify(sessions)).toContain('password');
  });

  it('takes codes of a clock that is one period off, and no others', async () => {
    for (const [offMs, status] of [
      [-30_000, 200],
      [30_000, 200],
      [-90_000, 401],
      [90_000, 401],
    ] as const) {
      const { auth, totp } = await arriveWithTwoFactor();
      const challenge = await challengeFor(auth);
      await until('no other period begins soon', () => Date.now() % 30_000 < 25_000);
      const { status: got } = await answer(challenge, totp.generate({ timestamp: Date.now() + offMs }));
      expect({ offMs, got }).toEqual({ offMs, got: status });
    }
  });

  it('takes no code twice, nor one before it', async () => {
    const { auth, totp } = await arriveWithTwoFactor();
    const now = Date.now();
    const code = totp.generate({ timestamp: now });
    expect((await answer(await challengeFor(auth), code)).status).toBe(200);
    const again = await answer(await challengeFor(auth), code);
    expect([again.status, again.body.error.reason]).toEqual([401, 'wrong_code']);
    const before = totp.generate({ timestamp: now - 30_000 });
    expect((await answer(await challengeFor(auth), before)).body.error.reason).toBe('wrong_code');
  });

  it('takes one code once, however often it comes at the same moment', async () => {
    const { auth, totp } = await arriveWithTwoFactor();
    const challenges = await Promise.all([1, 2, 3, 4].map(() => challengeFor(auth)));
    const code = totp.generate();
    const answers = await Promise.all(challenges.map((challenge) => answer(challenge, code)));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 401, 401, 401]);
  });

  it('takes one challenge once', async () => {
    const { auth, totp, recoveryCodes: codes } = await arriveWithTwoFactor();
    const challenge = await challengeFor(auth);
    const answers = await Promise.all([totp.generate(), ...codes.slice(0, 3)].map((code) => answer(challenge, code)));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 400, 400, 400]);
    // The codes that came too late are as new.
    const used = await people.db.select().from(recoveryCodes).where(eq(recoveryCodes.userId, auth.user_id));
    expect(used.filter(({ usedAt }) => usedAt !== null).length).toBeLessThan(2);
  });

  it('can be tried again after a wrong code, and not after five minutes', async () => {
    const { auth, totp } = await arriveWithTwoFactor();
    const challenge = await challengeFor(auth);
    expect((await answer(challenge, wrongCode(totp))).body.error.reason).toBe('wrong_code');
    expect((await answer(challenge, totp.generate())).status).toBe(200);
    await letTimePass(auth);
    const late = await challengeFor(auth);
    await people.db
      .update(oneTimeTokens)
      .set({ expiresAt: new Date(Date.now() - 1000) })
      .where(eq(oneTimeTokens.subject, auth.user_id));
    expect((await answer(late, totp.generate())).body.error.reason).toBe('invalid_token');
    expect((await answer('made-up', totp.generate())).body.error.reason).toBe('invalid_token');
  });

  it('does not outlive a change of the password that comes while the code is taken', async () => {
    const { auth, totp } = await arriveWithTwoFactor();
    const challenge = await challengeFor(auth);
    const json = { current_password: PASSWORD, new_password: 'a new password' };
    const changes: number[] = [];
    // Right after the first transaction of the login.
    const transaction = async (work: (tx: Db) => Promise<unknown>) => {
      const result = await people.db.transaction(work);
      changes.push((await visitor.call('/v1/me/password', { json, token: auth.token })).status);
      return result;
    };
    const db = new Proxy(people.db, {
      get: (target, name) => (name === 'transaction' ? transaction : Reflect.get(target, name)),
    });
    const secrets = await openSecrets(dirname(platform.apiKeyFile), {
      jwtSecret: undefined,
      encryptionKeys: undefined,
    });
    const exchange = { request: { ip: '127.0.0.1', headers: {} }, reply: { setCookie: () => undefined } };
    const { token } = await loginWithSecondFactor(
      { db, secrets, settings: { publicUrl: platform.baseUrl } },
      exchange as unknown as LoginExchange,
      { challenge, code: totp.generate() },
    );
    expect(changes[0]).toBe(204);
    expect((await visitor.call('/v1/me', { token })).status).toBe(401);
  });

  it("is not complete with somebody else's code", async () => {
    const [ada, mallory] = [await arriveWithTwoFactor(), await arriveWithTwoFactor()];
    const challenge = await challengeFor(ada.auth);
    expect((await answer(challenge, mallory.totp.generate())).status).toBe(401);
    expect((await answer(challenge, mallory.recoveryCodes[0] ?? '')).status).toBe(401);
  });

  it('takes each recovery code once, however it is typed', async () => {
    const { auth, recoveryCodes: codes } = await arriveWithTwoFactor();
    const [first = '', second = ''] = codes;
    expect((await answer(await challengeFor(auth), first)).status).toBe(200);
    expect((await answer(await challengeFor(auth), first)).body.error.reason).toBe('wrong_code');
    const typed = ` ${second.toUpperCase().replaceAll('-', ' ')}`;
    expect((await answer(await challengeFor(auth), typed)).status).toBe(200);
    const isUse = eq(auditLog.action, 'use_recovery_code');
    const entries = await people.db.select().from(auditLog).where(isUse).orderBy(auditLog.createdAt);
    const own = entries.filter(({ actorId }) => actorId === auth.user_id);
    expect(own.map(({ metadata }) => metadata)).toEqual([{ left: 9 }, { left: 8 }]);
  });

  it('with a provider asks for it too', async () => {
    const { auth, totp } = await arriveWithTwoFactor();
    github.account = {
      id: randomBytes(4).readUInt32BE(),
      login: 'ada',
      name: null,
      emails: [{ email: auth.email, primary: true, verified: true }],
    };
    const browser = new Browser();
    const isLanding = (url: URL) => /^\/auth\/\w+\/callback$/.test(url.pathname);
    const connect = `${platform.baseUrl}/v1/me/providers/github/connect`;
    await browser.visit((await browser.call(connect, { token: auth.token })).body.auth_url, isLanding);
    const { url } = await browser.visit(`${platform.baseUrl}/auth/oauth/github`, isLanding);
    const code = new URLSearchParams(url.hash.slice(1)).get('code');
    const { status, body } = await browser.call(`${platform.baseUrl}/v1/auth/exchange`, { json: { code } });
    expect([status, body.error.reason]).toEqual([401, 'two_factor_required']);
    const done = await answer(body.error.details.challenge, totp.generate());
    expect(done.status).toBe(200);
    const sessions = (await visitor.call('/v1/me/sessions', { token: done.body.token })).body;
    expect(JSON.stringify(sessions)).toContain('github');
  });
});

describe('wrong codes', () => {
  it('lock the account, for right ones and right passwords too', async () => {
    const { auth, totp } = await arriveWithTwoFactor();
    const challenge = await challengeFor(auth);
    const wrong = wrongCode(totp);
    const beforeMs = Date.now();
    for (let n = 0; n < FAILURES_TO_LOCK; n += 1) {
      expect((await answer(challenge, wrong)).body.error.reason).toBe('wrong_code');
    }
    const locked = await answer(challenge, totp.generate());
    expect([locked.status, locked.body.error.reason]).toEqual([429, 'rate_limited']);
    const waitS = Number(locked.headers.get('retry-after'));
    expect(waitS).toBeLessThanOrEqual(60);
    expect(Date.now() + 1000 * waitS).toBeGreaterThan(beforeMs + 50_000);
    expect((await visitor.logIn(auth.email)).body.error.reason).toBe('invalid_credentials');
    const off = await visitor.call('/v1/me/two-factor', {
      method: 'DELETE',
      json: { code: totp.generate() },
      token: auth.token,
    });
    expect(off.status).toBe(429);
    await people.db.update(users).set({ lockedUntil: new Date() }).where(eq(users.id, auth.user_id));
    expect((await answer(challenge, totp.generate())).status).toBe(200);
    expect((await userOf(auth)).failedLogins).toBe(0);
  });

  it('at the same moment are no more than the limit', async () => {
    const { auth, totp } = await arriveWithTwoFactor();
    const challenge = await challengeFor(auth);
    const wrong = wrongCode(totp);
    const answers = await Promise.all(Array.from({ length: 2 * FAILURES_TO_LOCK }, () => answer(challenge, wrong)));
    const judged = answers.filter(({ status }) => status === 401);
    // The right password before counted as an attempt until its second step.
    expect(judged.length).toBeLessThanOrEqual(FAILURES_TO_LOCK);
  });
});

describe('switching it off', () => {
  const off = ({ token }: AuthBody, code: string) =>
    visitor.call('/v1/me/two-factor', { method: 'DELETE', json: { code }, token });

  it('needs a code, and leaves nothing behind', async () => {
    const { auth, totp, recoveryCodes: codes } = await arriveWithTwoFactor();
    expect((await off(auth, wrongCode(totp))).body.error.reason).toBe('wrong_code');
    const none = await visitor.call('/v1/me/two-factor', { method: 'DELETE', token: auth.token });
    expect(none.status).toBe(400);
    expect((await off(auth, totp.generate())).status).toBe(204);
    expect(await userOf(auth)).toMatchObject({ totpSecret: null, totpConfirmedAt: null, failedLogins: 0 });
    expect((await visitor.logIn(auth.email, PASSWORD)).status).toBe(200);
    expect((await off(auth, codes[0] ?? '')).body.error.reason).toBe('two_factor_off');
    expect(await people.db.select().from(recoveryCodes).where(eq(recoveryCodes.userId, auth.user_id))).toEqual([]);
    expect(await auditOf(auth)).toEqual(['enable', 'disable']);
    expect((await visitor.mailsTo(auth.email)).filter((kind) => kind === 'two_factor_changed')).toHaveLength(2);
  });

  it('works with a recovery code', async () => {
    const { auth, recoveryCodes: codes } = await arriveWithTwoFactor();
    expect((await off(auth, codes[9] ?? '')).status).toBe(204);
  });

  it('leaves no challenge that was begun before it', async () => {
    const { auth, totp } = await arriveWithTwoFactor();
    const challenge = await challengeFor(auth);
    expect((await off(auth, totp.generate())).status).toBe(204);
    await letTimePass(auth);
    expect((await answer(challenge, totp.generate())).status).toBe(409);
  });
});

describe('new recovery codes', () => {
  it('take the place of the old ones, for a code', async () => {
    const { auth, totp, recoveryCodes: old } = await arriveWithTwoFactor();
    const renew = (code: string) =>
      visitor.call('/v1/me/two-factor/recovery-codes', { json: { code }, token: auth.token });
    expect((await renew(wrongCode(totp))).body.error.reason).toBe('wrong_code');
    const { status, body } = await renew(totp.generate());
    expect(status).toBe(200);
    expect(body.recovery_codes).toHaveLength(10);
    expect((await answer(await challengeFor(auth), old[0] ?? '')).body.error.reason).toBe('wrong_code');
    expect((await answer(await challengeFor(auth), body.recovery_codes[0])).status).toBe(200);
    expect(await auditOf(auth)).toEqual(['enable', 'renew_recovery_codes', 'use_recovery_code']);
  });
});

describe('an API key', () => {
  it('has no second factor', async () => {
    for (const [path, method] of [
      ['/v1/me/two-factor', 'POST'],
      ['/v1/me/two-factor', 'DELETE'],
      ['/v1/me/two-factor/confirm', 'POST'],
      ['/v1/me/two-factor/recovery-codes', 'POST'],
    ] as const) {
      const { status, body } = await platform.call(path, { method, ...{ json: { code: '123456' } } });
      expect([status, body.error.reason]).toEqual([403, 'login_required']);
    }
  });
});
