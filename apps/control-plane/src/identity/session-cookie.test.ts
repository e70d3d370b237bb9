import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { PASSWORD, Visitor } from '../testing/visitor.ts';

const OVER_HTTPS = { 'x-forwarded-proto': 'https' };
const EMAIL = 'ada@example.com';

let platform: TestPlatform;
let people: TestPeople;
let visitor: Visitor;
let token: string;
beforeAll(async () => {
  platform = await TestPlatform.start({ WRENN_TRUSTED_PROXIES: '127.0.0.0/8' });
  people = await TestPeople.of(platform);
  visitor = new Visitor(platform, people);
  token = (await visitor.arrive(EMAIL)).token;
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

async function statusWith(cookie: string, headers: Record<string, string> = {}): Promise<number> {
  return (await visitor.call('/v1/me', { headers: { cookie, ...headers } })).status;
}

describe('the cookie of a login over HTTPS', () => {
  it('has the prefix that keeps other hosts of the domain from setting it', async () => {
    const { headers } = await visitor.call('/v1/auth/login', {
      json: { email: EMAIL, password: PASSWORD },
      headers: OVER_HTTPS,
    });
    const [cookie = '', ...others] = headers.getSetCookie();
    expect(others).toEqual([]);
    expect(cookie).toMatch(/^__Host-wrenn_session=[^;]+;/);
    expect(cookie).toMatch(/; Path=\/(;|$)/);
    expect(cookie).toMatch(/; Secure(;|$)/);
    expect(cookie).not.toMatch(/Domain/i);
    expect(await statusWith(cookie.split(';')[0] ?? '', OVER_HTTPS)).toBe(200);
  });

  it('is the only one that counts there', async () => {
    expect(await statusWith(`wrenn_session=${token}`, OVER_HTTPS)).toBe(401);
    expect(await statusWith(`wrenn_session=planted; __Host-wrenn_session=${token}`, OVER_HTTPS)).toBe(200);
    expect(await statusWith(`__Host-wrenn_session=planted; wrenn_session=${token}`, OVER_HTTPS)).toBe(401);
  });

  it('is taken away under both names at the end of the login', async () => {
    const auth = (await visitor.logIn(EMAIL)).body;
    const { headers } = await visitor.call('/v1/auth/logout', { json: {}, token: auth.token, headers: OVER_HTTPS });
    const cleared = headers.getSetCookie();
    expect(cleared.map((cookie) => cookie.split('=')[0])).toEqual(['wrenn_session', '__Host-wrenn_session']);
    expect(cleared[1]).toMatch(/^__Host-wrenn_session=;.*; Secure/);
    for (const cookie of cleared) expect(cookie).toMatch(/Expires=Thu, 01 Jan 1970/);
  });
});

describe('the cookie of a login over plain HTTP', () => {
  it('has no prefix, which browsers would refuse, and is read under that name alone', async () => {
    const { headers } = await visitor.call('/v1/auth/login', { json: { email: EMAIL, password: PASSWORD } });
    expect(headers.getSetCookie()).toEqual([expect.stringMatching(/^wrenn_session=(?!.*Secure)/)]);
    expect(await statusWith(`wrenn_session=${token}`)).toBe(200);
    expect(await statusWith(`__Host-wrenn_session=${token}`)).toBe(401);
  });
});
