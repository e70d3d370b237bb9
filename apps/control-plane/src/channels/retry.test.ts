import { expect, it } from 'vitest';
import { retryDelayMs } from './retry.ts';

const HOUR_MS = 3_600_000;
const delays = (random: number) => {
  const found: number[] = [];
  for (let n = 0; ; n++) {
    const delayMs = retryDelayMs(n, random);
    if (delayMs === undefined) return found;
    found.push(delayMs);
  }
};

it('repeats ever more slowly for about a day, then gives up', () => {
  const middle = delays(0.5);
  expect(middle.slice(0, 3)).toEqual([10_000, 30_000, 120_000]);
  expect(middle).toEqual(middle.toSorted((a, b) => a - b));
  const totalMs = middle.reduce((sum, ms) => sum + ms, 0);
  expect(totalMs).toBeGreaterThan(20 * HOUR_MS);
  expect(totalMs).toBeLessThan(28 * HOUR_MS);
});

it('spreads each delay by a fifth to both sides', () => {
  expect(retryDelayMs(0, 0)).toBe(8000);
  expect(retryDelayMs(0, 1)).toBe(12_000);
});
