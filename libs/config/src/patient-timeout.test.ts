import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { patientTimeout } from './patient-timeout.ts';

const LIMIT_MS = 300;

function standStill(ms: number): void {
  const untilMs = performance.now() + ms;
  while (performance.now() < untilMs);
}

it('fires when the time is over', async () => {
  using limit = patientTimeout(LIMIT_MS);
  const began = performance.now();
  await once(limit.signal, 'abort');
  expect(performance.now() - began).toBeGreaterThan(LIMIT_MS - 5);
  expect(limit.signal.reason).toMatchObject({ name: 'TimeoutError' });
});

it('begins anew where this program stood still', async () => {
  using limit = patientTimeout(LIMIT_MS);
  standStill(3 * LIMIT_MS);
  const began = performance.now();
  await once(limit.signal, 'abort');
  expect(performance.now() - began).toBeGreaterThan(LIMIT_MS - 5);
});

it('does not fire once it was disposed', async () => {
  const limit = patientTimeout(10);
  limit[Symbol.dispose]();
  await delay(200);
  expect(limit.signal.aborted).toBe(false);
});
