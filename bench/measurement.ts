/** One row of bench/results/latest.json. */
export interface Measurement {
  readonly name: string;
  readonly unit: 'ms' | 'MB/s' | 'MiB' | 'requests/s' | 'capsules';
  /** How many samples. */
  readonly n: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  /** Median of the floor measured in the same run: the least that the same work costs without Wrenn. */
  readonly floorP50: number | null;
  /** p50 / floorP50. */
  readonly ratio: number | null;
  /** What the figure should be, as in "ratio ≤ 1.3"; null where nothing is aimed at. */
  readonly aim: string | null;
  readonly met: boolean | null;
}

/** What a figure should be. `above floor` is p50 - floorP50. */
export interface Aim {
  readonly of: 'p50' | 'p99' | 'ratio' | 'above floor';
  readonly sign: '≤' | '≥';
  readonly limit: number;
}

export interface Comparison {
  /** Samples of the floor, in the same unit. */
  readonly floor?: readonly number[];
  readonly aim?: Aim;
}

/**
 * The `q`-quantile (0 to 1) of samples, with linear interpolation between neighbours.
 *
 * @throws RangeError when there are no samples.
 */
export function quantile(samples: readonly number[], q: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const position = (sorted.length - 1) * q;
  const below = sorted[Math.floor(position)];
  const above = sorted[Math.ceil(position)];
  if (below === undefined || above === undefined) throw new RangeError('a quantile needs samples');
  return below + (above - below) * (position - Math.floor(position));
}

/**
 * Sums samples up, beside the samples of their floor and what is aimed at, where there is such.
 *
 * @throws RangeError when there are no samples, or an aim names a floor that was not taken.
 */
export function summarise(
  name: string,
  unit: Measurement['unit'],
  samples: readonly number[],
  { floor, aim }: Comparison = {},
): Measurement {
  const p50 = quantile(samples, 0.5);
  const p99 = round(quantile(samples, 0.99));
  const floorP50 = floor ? quantile(floor, 0.5) : null;
  const ratio = floorP50 === null ? null : round(p50 / floorP50);
  return {
    name,
    unit,
    n: samples.length,
    p50: round(p50),
    p95: round(quantile(samples, 0.95)),
    p99,
    floorP50: floorP50 === null ? null : round(floorP50),
    ratio,
    aim: aim ? `${aim.of} ${aim.sign} ${aim.limit}` : null,
    met: aim
      ? isMet(aim, { p50: round(p50), p99, ratio, 'above floor': floorP50 === null ? null : p50 - floorP50 })
      : null,
  };
}

function isMet({ of, sign, limit }: Aim, figures: Readonly<Record<Aim['of'], number | null>>): boolean {
  const figure = figures[of];
  if (figure === null) throw new RangeError(`an aim for "${of}" needs a floor`);
  return sign === '≤' ? figure <= limit : figure >= limit;
}

/** Three significant digits are what such timings are good for. */
function round(value: number): number {
  return Number(value.toPrecision(3));
}

/** Runs `work` and resolves with how many milliseconds it took. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}
