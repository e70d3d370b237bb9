import { describe, expect, it } from 'vitest';
import { quantile, summarise } from './measurement.ts';

describe('quantile', () => {
  it('interpolates between neighbours', () => {
    expect(quantile([4, 1, 3, 2], 0.5)).toBe(2.5);
    expect(quantile([10], 0.99)).toBe(10);
    expect(quantile([0, 100], 0.95)).toBe(95);
  });

  it('refuses to make a figure of nothing', () => {
    expect(() => quantile([], 0.5)).toThrow(RangeError);
  });
});

describe('summarise', () => {
  it('compares with the floor of the same run', () => {
    expect(summarise('x', 'ms', [12, 14, 13], [10, 10])).toEqual({
      name: 'x',
      unit: 'ms',
      n: 3,
      p50: 13,
      p95: 13.9,
      p99: 14,
      floorP50: 10,
      ratio: 1.3,
    });
  });

  it('says null where there is no floor', () => {
    expect(summarise('x', 'ms', [1])).toMatchObject({ floorP50: null, ratio: null });
  });
});
