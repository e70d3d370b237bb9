import { expect, it } from 'vitest';
import { startStopwatch } from './stopwatch.ts';
import { until } from './until.ts';

it('counts the time in which this program runs, and no more', async () => {
  using stopwatch = startStopwatch();
  const began = performance.now();
  await until('some time has passed', () => stopwatch.elapsedMs >= 300);
  expect(performance.now() - began).toBeGreaterThanOrEqual(299);
});

it('leaves out what this program stood still for', () => {
  using stopwatch = startStopwatch();
  const untilMs = performance.now() + 500;
  while (performance.now() < untilMs);
  expect(stopwatch.elapsedMs).toBeLessThanOrEqual(100);
});
