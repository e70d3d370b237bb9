import { expect, it } from 'vitest';
import { judgeAnswer } from './outcome.ts';

const now = new Date('2026-01-01T00:00:00Z');
const judge = (status: number, headers: Record<string, string> = {}, body: unknown = '') =>
  judgeAnswer({ status, headers, body: typeof body === 'string' ? body : JSON.stringify(body) }, now);

it('takes every 2xx, and nothing else', () => {
  expect(judge(204)).toEqual({ result: 'taken', statusCode: 204 });
  for (const status of [302, 400, 404, 500])
    expect(judge(status)).toMatchObject({ result: 'failed', statusCode: status });
  expect(judge(410)).toMatchObject({ result: 'gone' });
});

it('tells nothing of what was answered', () => {
  expect(JSON.stringify(judge(500, {}, 'your token is hunter2'))).not.toContain('hunter2');
});

it.each([
  ['seconds', judge(429, { 'retry-after': '7' }), 7000],
  ['a date', judge(503, { 'retry-after': 'Thu, 01 Jan 2026 00:02:00 GMT' }), 120_000],
  ["Discord's", judge(429, {}, { message: 'slow', retry_after: 2.5, global: false }), 2500],
  ["Telegram's", judge(429, {}, { ok: false, error_code: 429, parameters: { retry_after: 9 } }), 9000],
  ["Matrix's", judge(429, {}, { errcode: 'M_LIMIT_EXCEEDED', retry_after_ms: 1500 }), 1500],
  ['not less than a second', judge(429, { 'retry-after': '0' }), 1000],
  ['not more than an hour', judge(429, { 'retry-after': '999999' }), 3_600_000],
])('is silent as long as it is asked to: %s', (_form, outcome, holdMs) => {
  expect(outcome).toMatchObject({ result: 'held', holdMs });
});

it('backs off by itself where a 429 does not say for how long', () => {
  expect(judge(429)).toMatchObject({ result: 'failed', statusCode: 429 });
  expect(judge(429, { 'retry-after': 'soon' }, '[')).toMatchObject({ result: 'failed' });
});
