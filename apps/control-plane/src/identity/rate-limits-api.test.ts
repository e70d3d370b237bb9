import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rateLimits } from '../database/people-schema.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { Visitor } from '../testing/visitor.ts';

let platform: TestPlatform;
let people: TestPeople;
let visitor: Visitor;
beforeAll(async () => {
  // A tenth: 6 logins from one address and 3 for one account, 2 sign-ups.
  platform = await TestPlatform.start({ WRENN_RATE_LIMIT_FACTOR: '0.1', WRENN_TRUSTED_PROXIES: '127.0.0.1' });
  people = await TestPeople.of(platform);
  visitor = new Visitor(platform, people);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

const from = (address: string, path: string, json: unknown) =>
  visitor.call(path, { json, headers: { 'x-forwarded-for': address } });
const logIn = (address: string, email: string) =>
  from(address, '/v1/auth/login', { email, password: 'a wrong password' });
const statuses = async (answers: Promise<{ status: number }>[]) =>
  (await Promise.all(answers)).map(({ status }) => status).toSorted();

describe('limits', () => {
  it('hold for one address, whichever accounts it tries, and say when to come again', async () => {
    const tries = Array.from({ length: 8 }, (_, index) => logIn('192.0.2.1', `somebody-${index}@example.com`));
    expect(await statuses(tries)).toEqual([401, 401, 401, 401, 401, 401, 429, 429]);
    const { body, headers } = await logIn('192.0.2.1', 'more@example.com');
    expect(body.error).toMatchObject({ code: 'rate_limited', retryable: true });
    const retryAfterS = Number(headers.get('retry-after'));
    expect(retryAfterS).toBeGreaterThan(200);
    expect(retryAfterS).toBeLessThanOrEqual(300);
    expect((await logIn('192.0.2.2', 'more@example.com')).status).toBe(401);
  });

  it('hold for one account, from whichever addresses, whether it is there or not', async () => {
    const user = await people.addUser({ email: 'there@example.com' });
    for (const email of [user.email, 'not-there@example.com']) {
      const tries = Array.from({ length: 5 }, (_, index) => logIn(`198.51.100.${index}`, email.toUpperCase()));
      expect(await statuses(tries)).toEqual([401, 401, 401, 429, 429]);
    }
  });

  it('hold for the network that an IPv6 client has', async () => {
    const tries = Array.from({ length: 8 }, (_, index) => logIn(`2001:db8:0:7::${index}`, `six-${index}@example.com`));
    expect(await statuses(tries)).toEqual([401, 401, 401, 401, 401, 401, 429, 429]);
    expect((await logIn('2001:db8:0:8::1', 'six@example.com')).status).toBe(401);
    expect((await logIn('2001:db8:0:7:ffff::1', 'six@example.com')).status).toBe(429);
  });

  it('hold on every path that takes credentials', async () => {
    const paths: Record<string, unknown> = {
      '/v1/auth/signup': { email: 'flood@example.com', password: 'a password', name: 'Flood' },
      '/v1/auth/activate': { token: 'nonsense' },
      '/v1/auth/two-factor': { challenge: 'nonsense', code: '123456' },
      '/v1/me/password/reset': { email: 'flood@example.com' },
      '/v1/me/password/reset/confirm': { token: 'nonsense', new_password: 'a password' },
      '/v1/invitations/preview': { token: 'nonsense' },
    };
    for (const [path, json] of Object.entries(paths)) {
      const answers = await Promise.all(Array.from({ length: 10 }, () => from('203.0.113.1', path, json)));
      expect({ path, last: answers.filter(({ status }) => status === 429).length > 0 }).toEqual({ path, last: true });
      expect({ path, first: answers.some(({ status }) => status < 429) }).toEqual({ path, first: true });
    }
  });

  it('are shared by all control planes, and keep no address of an account', async () => {
    await using other = await platform.startAnother();
    const tries = [1, 2, 3, 4, 5, 6].map((index) => {
      const port = index % 2 === 0 ? other.port : undefined;
      return loginAt(port, `192.0.2.${100 + index}`);
    });
    expect(await statuses(tries)).toEqual([401, 401, 401, 429, 429, 429]);
    expect(JSON.stringify(await people.db.select().from(rateLimits))).not.toContain('example.com');
  });

  function loginAt(port: number | undefined, address: string): Promise<{ status: number }> {
    const base = port === undefined ? platform.baseUrl : `http://127.0.0.1:${port}`;
    return fetch(`${base}/v1/auth/login`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-forwarded-for': address },
      body: JSON.stringify({ email: 'shared@example.com', password: 'a wrong password' }),
    });
  }
});
