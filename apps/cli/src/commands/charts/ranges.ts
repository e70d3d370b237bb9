const UNITS_MS = { m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** How long the time is that a range of the API stands for: `5m`, `24h`, `30d`. */
export function rangeMs(range: string): number {
  const match = /^(\d+)([mhd])$/.exec(range);
  if (!match) throw new RangeError(`${range} is no range`);
  return Number(match[1]) * UNITS_MS[match[2] as keyof typeof UNITS_MS];
}

/** Columns of a chart. All ranges have a multiple of as many points, or fewer. */
export const CHART_WIDTH = 40;
