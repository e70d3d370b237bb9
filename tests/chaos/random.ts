/** Random choices that a seed repeats. What happens between processes is not repeated by it. */
export interface Random {
  /** In [0, 1). */
  next(): number;
  /** A whole number in [from, to]. */
  int(from: number, to: number): number;
  chance(probability: number): boolean;
  /** @returns undefined when there is nothing to choose from */
  pick<T>(from: readonly T[]): T | undefined;
  /** Chooses by weight; at least one weight is above 0. */
  weighted<T>(from: readonly (readonly [weight: number, value: T])[]): T;
}

/** The generator is mulberry32, which is in the public domain. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const int = (from: number, to: number) => from + Math.floor(next() * (to - from + 1));
  return {
    next,
    int,
    chance: (probability) => next() < probability,
    pick: (from) => from[int(0, from.length - 1)],
    weighted: (from) => {
      let left = next() * from.reduce((sum, [weight]) => sum + weight, 0);
      for (const [weight, value] of from) {
        left -= weight;
        if (left < 0) return value;
      }
      const last = from.findLast(([weight]) => weight > 0);
      if (!last) throw new Error('there is nothing to choose from');
      return last[1];
    },
  };
}
