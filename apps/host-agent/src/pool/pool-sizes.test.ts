import { describe, expect, it } from 'vitest';
import { type PoolShare, poolSizes } from './pool-sizes.ts';

describe('poolSizes', () => {
  const share = (key: string, wanted: number, memoryMb: number): PoolShare => ({ key, wanted, memoryMb });

  it.each<[string, PoolShare[], number, Record<string, number>]>([
    ['nothing is wanted', [share('a', 0, 512)], 10_000, { a: 0 }],
    ['no room at all', [share('a', 5, 512)], 0, { a: 0 }],
    ['room for all', [share('a', 3, 512), share('b', 1, 1024)], 10_000, { a: 3, b: 1 }],
    ['room for some', [share('a', 20, 512)], 1100, { a: 2 }],
    ['a VM larger than the room', [share('a', 1, 2048)], 1024, { a: 0 }],
    ['a large burst leaves something to others', [share('a', 20, 512), share('b', 1, 512)], 1536, { a: 2, b: 1 }],
    ['what is too large leaves its room to others', [share('a', 1, 4096), share('b', 4, 256)], 1024, { a: 0, b: 4 }],
  ])('%s', (_, shares, maxMb, expected) => {
    expect(Object.fromEntries(poolSizes(shares, maxMb))).toEqual(expected);
  });

  it('never gives out more than the room', () => {
    for (let maxMb = 0; maxMb < 5000; maxMb += 77) {
      const shares = [share('a', 7, 128), share('b', 9, 512), share('c', 3, 1024)];
      const sizes = poolSizes(shares, maxMb);
      const usedMb = shares.reduce((sum, { key, memoryMb }) => sum + (sizes.get(key) ?? 0) * memoryMb, 0);
      expect(usedMb).toBeLessThanOrEqual(maxMb);
    }
  });
});
