import { describe, expect, it } from 'vitest';
import { type Aim, quantile, summarise } from './measurement.ts';

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
    expect(summarise('x', 'ms', [12, 14, 13], { floor: [10, 10] })).toEqual({
      name: 'x',
      unit: 'ms',
      n: 3,
      p50: 13,
      p95: 13.9,
      p99: 14,
      floorP50: 10,
      ratio: 1.3,
      aim: null,
      met: null,
    });
  });

  it('says null where there is no floor', () => {
    expect(summarise('x', 'ms', [1])).toMatchObject({ floorP50: null, ratio: null });
  });

  it.each<[Aim, string, boolean]>([
    [{ of: 'ratio', sign: '≤', limit: 1.3 }, 'ratio ≤ 1.3', true],
    [{ of: 'ratio', sign: '≤', limit: 1.29 }, 'ratio ≤ 1.29', false],
    [{ of: 'ratio', sign: '≥', limit: 1.4 }, 'ratio ≥ 1.4', false],
    [{ of: 'p50', sign: '≤', limit: 13 }, 'p50 ≤ 13', true],
    [{ of: 'above floor', sign: '≤', limit: 2 }, 'above floor ≤ 2', false],
  ])('says whether %j is met', (aim, text, met) => {
    expect(summarise('x', 'ms', [13], { floor: [10], aim })).toMatchObject({ aim: text, met });
  });

  it('refuses an aim that nothing was measured for', () => {
    expect(() => summarise('x', 'ms', [1], { aim: { of: 'ratio', sign: '≤', limit: 1 } })).toThrow(RangeError);
  });
});
