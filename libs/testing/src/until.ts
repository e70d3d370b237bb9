import { setTimeout as delay } from 'node:timers/promises';

type Check<T> = () => T | Promise<T>;

/** No test proves anything by it: far more than a machine that is busy, or stands still for a while, needs. */
const DEFAULT_TIMEOUT_MS = 60_000;
const INTERVAL_MS = 10;

/**
 * Waits until `check` gives something that counts as true, asking again every few milliseconds, and answers that.
 *
 * @param what completes "waited in vain until …"
 * @param timeoutMs 60 s where it is left out
 * @throws Error that names `what` when the time is over; whatever `check` throws, at once
 */
export function until<T>(what: string, check: Check<T>): Promise<NonNullable<T>>;
export function until<T>(what: string, timeoutMs: number, check: Check<T>): Promise<NonNullable<T>>;
export async function until<T>(
  what: string,
  ...rest: [check: Check<T>] | [timeoutMs: number, check: Check<T>]
): Promise<NonNullable<T>> {
  const [timeoutMs, check] = rest.length === 1 ? [DEFAULT_TIMEOUT_MS, rest[0]] : rest;
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain until ${what}`);
    await delay(INTERVAL_MS);
  }
}
