import { errorResponseSchema } from '@wrenn/protocol/rest/error';
import { expect, it } from 'vitest';
import { TestPlatform } from '../testing/test-platform.ts';

/** 120 a minute, times this. */
const LIMIT = 6;

it('tells an address with many wrong credentials to wait, and lets right ones pass', async () => {
  await using platform = await TestPlatform.start({ WRENN_RATE_LIMIT_FACTOR: String(LIMIT / 120) });
  await using second = await platform.startAnother();
  const urls = [platform.baseUrl, `http://127.0.0.1:${second.port}`];
  const wrong = { 'x-api-key': `wrn_${'0'.repeat(40)}` };
  const statuses: number[] = [];
  for (let attempt = 0; attempt < LIMIT; attempt++) {
    statuses.push((await fetch(`${urls[attempt % urls.length]}/v1/capsules`, { headers: wrong })).status);
  }
  expect(statuses).toEqual(Array(LIMIT).fill(401));
  for (const url of urls) {
    const refused = await fetch(`${url}/v1/capsules`, { headers: wrong });
    expect(refused.status).toBe(429);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(errorResponseSchema.parse(await refused.json()).error.reason).toBe('rate_limited');
    const right = await fetch(`${url}/v1/capsules`, { headers: { 'x-api-key': platform.apiKey } });
    expect(right.status).toBe(200);
  }
});
