import { describe, expect, it } from 'vitest';
import { burstSize, Demand } from './demand.ts';

const NOW = 10_000_000;
const ago = (...seconds: number[]) => seconds.map((second) => NOW - second * 1000);
const times = (count: number, second: number) => Array.from({ length: count }, () => NOW - second * 1000);

describe('burstSize', () => {
  it.each<[string, number[], number]>([
    ['nobody asked', [], 0],
    ['one just now', ago(0), 1],
    ['one nine minutes ago', ago(540), 1],
    ['one ten minutes ago', ago(600), 0],
    ['a burst of twenty just now', times(20, 0), 20],
    ['a burst of twenty five minutes ago', times(20, 300), 10],
    ['a burst of twenty nearly ten minutes ago', times(20, 590), 1],
    ['one every five seconds', ago(25, 20, 15, 10, 5, 0), 2],
    ['a burst spread over nine seconds', ago(9, 6, 3, 0), 4],
    ['two halves of a burst, ten seconds apart', [...times(3, 10), ...times(4, 0)], 4],
    ['an old burst that still outweighs a new one', [...times(20, 300), ...times(2, 0)], 10],
    ['an old burst that no longer does', [...times(20, 570), ...times(4, 0)], 4],
  ])('%s', (_, askedMs, expected) => {
    expect(burstSize(askedMs, NOW)).toBe(expected);
  });
});

describe('Demand', () => {
  it('forgets what is older than ten minutes', () => {
    const demand = new Demand();
    for (let i = 0; i < 5; i++) demand.note(NOW);
    expect(demand.wanted(NOW)).toBe(5);
    expect(demand.wanted(NOW + 600_000)).toBe(0);
    demand.note(NOW + 600_000);
    expect(demand.wanted(NOW + 600_000)).toBe(1);
  });

  it('counts the latest of very many', () => {
    const demand = new Demand();
    for (let i = 0; i < 5000; i++) demand.note(NOW + i);
    expect(demand.wanted(NOW + 5000)).toBeGreaterThan(500);
    expect(demand.wanted(NOW + 5000)).toBeLessThan(1100);
  });
});
