import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Browser } from '../testing/browser.ts';
import { GithubDouble } from '../testing/github-double.ts';
import { TestPlatform } from '../testing/test-platform.ts';

/** Where 60 attempts are allowed otherwise, 6 are here. */
const FACTOR = '0.1';

let github: GithubDouble;
let platform: TestPlatform;

beforeAll(async () => {
  github = await GithubDouble.start();
  platform = await TestPlatform.start({
    OAUTH_GITHUB_CLIENT_ID: github.clientId,
    OAUTH_GITHUB_CLIENT_SECRET: github.clientSecret,
    OAUTH_GITHUB_URL: github.url,
    OAUTH_GITHUB_API_URL: github.url,
    CP_PUBLIC_URL: 'https://wrenn.example.com/',
    WRENN_RATE_LIMIT_FACTOR: FACTOR,
  });
});
afterAll(async () => {
  await platform?.[Symbol.asyncDispose]();
  await github?.[Symbol.asyncDispose]();
});

describe('a platform at https', () => {
  test('has a cookie that no other host of its domain can set, and is named to the provider', async () => {
    const answer = await fetch(`${platform.baseUrl}/auth/oauth/github?at_public_url=1`, { redirect: 'manual' });
    const target = new URL(answer.headers.get('location') ?? '');
    expect(target.searchParams.get('redirect_uri')).toBe('https://wrenn.example.com/auth/oauth/github/callback');
    const [cookie = ''] = answer.headers.getSetCookie();
    expect(cookie).toMatch(/^__Host-wrenn_oauth=[\da-f]{64};/);
    const attributes = cookie.split('; ').slice(1);
    expect(attributes.sort()).toEqual(['HttpOnly', 'Max-Age=600', 'Path=/', 'SameSite=Lax', 'Secure']);
    expect(answer.headers.get('cache-control')).toBe('no-store');
  });

  test('begins at its public address, where the browser will come back to', async () => {
    const answer = await fetch(`${platform.baseUrl}/v1/auth/oauth/github?intent=signup&invitation=abc`, {
      redirect: 'manual',
    });
    const there = 'https://wrenn.example.com/v1/auth/oauth/github?intent=signup&invitation=abc&at_public_url=1';
    expect([answer.status, answer.headers.get('location')]).toEqual([302, there]);
    expect(answer.headers.getSetCookie()).toEqual([]);
  });

  test('sends browsers to itself, whatever host they name', async () => {
    const callback = `${platform.baseUrl}/auth/oauth/github/callback?error=access_denied`;
    const answer = await fetch(callback, { redirect: 'manual', headers: { 'x-forwarded-host': 'evil.example.com' } });
    expect(answer.headers.get('location')).toBe('https://wrenn.example.com/auth/github/callback?error=access_denied');
  });

  test('has passkeys for its public name', async () => {
    const { body } = await new Browser().call(`${platform.baseUrl}/v1/auth/passkey/options`, { method: 'POST' });
    expect(body.options.rpId).toBe('wrenn.example.com');
  });
});

describe('attempts beyond the limit', () => {
  test('to begin with a provider end at the page that says so', async () => {
    let location = '';
    for (let n = 0; n < 8; n += 1) {
      const answer = await fetch(`${platform.baseUrl}/auth/oauth/github?at_public_url=1`, { redirect: 'manual' });
      expect(answer.status).toBe(302);
      location = answer.headers.get('location') ?? '';
    }
    expect(new URL(location).searchParams.get('error')).toBe('rate_limited');
  });

  test.each([
    ['/v1/auth/exchange', { code: 'guess' }],
    ['/v1/auth/two-factor', { challenge: 'guess', code: '123456' }],
    ['/v1/auth/passkey/options', undefined],
  ])('of %s are refused', async (path, json) => {
    const statuses: number[] = [];
    let retryAfter: string | null = null;
    for (let n = 0; n < 8; n += 1) {
      const answer = await new Browser().call(`${platform.baseUrl}${path}`, { method: 'POST', json });
      statuses.push(answer.status);
      retryAfter = answer.headers.get('retry-after');
    }
    expect(statuses.at(-1)).toBe(429);
    expect(Number(retryAfter)).toBeGreaterThan(0);
  });
});
