import { expect, it } from 'vitest';
import { backOffMs } from './back-off.ts';

it('doubles with each failure up to its last, and is up to half less by chance', () => {
  const backOff = { firstMs: 1000, lastMs: 30_000 };
  for (const [failures, mostMs] of [
    [1, 1000],
    [2, 2000],
    [5, 16_000],
    [6, 30_000],
    [100_000, 30_000],
  ] as const) {
    const waits = Array.from({ length: 200 }, () => backOffMs(backOff, failures));
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(mostMs / 2);
    expect(Math.max(...waits)).toBeLessThanOrEqual(mostMs);
    expect(new Set(waits).size).toBeGreaterThan(100);
  }
});
