import type { CapsuleBody } from '@wrenn/protocol/rest/capsule';
import { formatInstant, formatSpan } from '../terminal/format.ts';

type Lifetime = Pick<CapsuleBody, 'timeout_sec' | 'on_timeout' | 'auto_resume' | 'deadline_at'>;

/** When a capsule goes to sleep or ends by itself, as titles and texts. */
export function describeLifetime(capsule: Lifetime, nowMs: number): [string, string][] {
  const { timeout_sec, on_timeout, auto_resume, deadline_at } = capsule;
  const happens = on_timeout === 'pause' ? 'paused' : 'destroyed';
  return [
    ['Timeout', timeout_sec === 0 ? 'none' : `${happens} after ${formatSpan(timeout_sec * 1000)} without activity`],
    ['Deadline', deadline_at === null ? 'none' : `${happens} ${describeInstant(deadline_at, nowMs)}`],
    ['Auto-resume', auto_resume ? 'on: resumes by itself when it is used' : 'off'],
  ];
}

/** An instant and how far off it is: `3m 20s ago (…)` or `in 2h (…)`. */
export function describeInstant(timestamp: string, nowMs: number): string {
  const offMs = Date.parse(timestamp) - nowMs;
  const off = offMs > 0 ? `in ${formatSpan(offMs)}` : `${formatSpan(-offMs)} ago`;
  return `${off} (${formatInstant(timestamp)})`;
}

/** How long something lasts already: `for 3m 20s (since …)`. */
export function describeSince(timestamp: string, nowMs: number): string {
  return `for ${formatSpan(nowMs - Date.parse(timestamp))} (since ${formatInstant(timestamp)})`;
}
