import type { OutboundAnswer } from '../outbound/outbound.ts';

/** What became of an attempt. `error` is in words, without anything of what was sent or answered. */
export type Outcome =
  | { readonly result: 'taken'; readonly statusCode?: number }
  | { readonly result: 'failed'; readonly error: string; readonly statusCode?: number }
  /** The provider asks for silence. */
  | { readonly result: 'held'; readonly error: string; readonly statusCode: number; readonly holdMs: number }
  /** The address will never work again. */
  | { readonly result: 'gone'; readonly error: string; readonly statusCode: number };

const TOO_MANY = 429;
const GONE = 410;
const UNAVAILABLE = 503;
const LONGEST_HOLD_MS = 3_600_000;
const SHORTEST_HOLD_MS = 1000;

/** @param now what a Retry-After that is a date counts from */
export function judgeAnswer({ status, headers, body }: OutboundAnswer, now: Date): Outcome {
  const statusCode = status;
  if (status >= 200 && status < 300) return { result: 'taken', statusCode };
  if (status === GONE) return { result: 'gone', statusCode, error: 'answered 410: the address is gone for good' };
  if (status === TOO_MANY || status === UNAVAILABLE) {
    const holdMs = retryAfterMs(headers['retry-after'], now) ?? retryAfterIn(body);
    if (holdMs !== undefined && holdMs >= 0) {
      const bounded = Math.min(Math.max(holdMs, SHORTEST_HOLD_MS), LONGEST_HOLD_MS);
      return { result: 'held', statusCode, holdMs: bounded, error: `answered ${status} and asked to wait` };
    }
  }
  if (status >= 300 && status < 400) {
    return { result: 'failed', statusCode, error: `answered ${status}: redirects are not followed` };
  }
  return { result: 'failed', statusCode, error: `answered ${status}` };
}

/** Seconds or a date: RFC 9110, section 10.2.3. */
function retryAfterMs(header: string | undefined, now: Date): number | undefined {
  if (header === undefined) return undefined;
  if (/^\d+(\.\d+)?$/.test(header)) return Number(header) * 1000;
  const until = Date.parse(header);
  return Number.isNaN(until) ? undefined : until - now.getTime();
}

/** Discord gives `retry_after` in seconds, Telegram within `parameters`, Matrix `retry_after_ms`. */
function retryAfterIn(body: string): number | undefined {
  const answer = parseObject(body);
  const parameters = answer?.parameters;
  const inner = typeof parameters === 'object' && parameters !== null ? (parameters as Record<string, unknown>) : {};
  const seconds = answer?.retry_after ?? inner.retry_after;
  if (typeof seconds === 'number') return seconds * 1000;
  return typeof answer?.retry_after_ms === 'number' ? answer.retry_after_ms : undefined;
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
