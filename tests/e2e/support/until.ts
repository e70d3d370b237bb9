import { setTimeout as delay } from 'node:timers/promises';

/** Waits until `condition` holds, asking again every few milliseconds. Throws, naming `what`, when `timeoutMs` is over. */
export async function until(
  what: string,
  timeoutMs: number,
  condition: () => boolean | Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain until ${what}`);
    await delay(20);
  }
}
