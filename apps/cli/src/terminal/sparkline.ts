/** A measurement. */
export interface ChartPoint {
  readonly atMs: number;
  readonly value: number;
}

const BLOCKS = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'] as const;
/** Where nothing was measured. */
const GAP = ' ';

/**
 * A chart in one line: each block is the highest value of its part of the time, from 0 to the highest of all. Times
 * without a measurement stay empty.
 *
 * @param points in order of time
 * @param span the time that the line stands for, in milliseconds since the epoch, without its end
 * @param maxWidth columns; the line is shorter where the points are fewer
 */
export function drawSparkline(
  points: readonly ChartPoint[],
  { fromMs, toMs }: { readonly fromMs: number; readonly toMs: number },
  maxWidth: number,
): string {
  const width = Math.max(1, Math.min(maxWidth, Math.floor((toMs - fromMs) / stepOf(points, toMs - fromMs))));
  const cells: (number | undefined)[] = new Array(width).fill(undefined);
  for (const { atMs, value } of points) {
    const index = Math.floor(((atMs - fromMs) / (toMs - fromMs)) * width);
    if (index >= 0 && index < width) cells[index] = Math.max(cells[index] ?? 0, value);
  }
  const highest = Math.max(0, ...cells.map((value) => value ?? 0));
  return cells.map((value) => (value === undefined ? GAP : blockOf(value, highest))).join('');
}

/** Whatever is more than nothing looks like more than nothing. */
function blockOf(value: number, highest: number): string {
  const last = BLOCKS.length - 1;
  const index = value > 0 ? Math.max(1, Math.round((value / highest) * last)) : 0;
  return BLOCKS[index] ?? BLOCKS[0];
}

/** The time from one point to the next, where none is missing. */
function stepOf(points: readonly ChartPoint[], spanMs: number): number {
  let stepMs = spanMs;
  for (let index = 1; index < points.length; index++) {
    const distanceMs = (points[index]?.atMs ?? 0) - (points[index - 1]?.atMs ?? 0);
    if (distanceMs > 0) stepMs = Math.min(stepMs, distanceMs);
  }
  return stepMs;
}
