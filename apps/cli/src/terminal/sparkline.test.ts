import { describe, expect, it } from 'vitest';
import { drawSparkline } from './sparkline.ts';

const points = (...values: (number | undefined)[]) =>
  values.flatMap((value, index) => (value === undefined ? [] : [{ atMs: 1000 + index * 10, value }]));
const spanOf = (count: number) => ({ fromMs: 1000, toMs: 1000 + count * 10 });

describe('a sparkline', () => {
  it('is as high as its values, from nothing to the highest', () => {
    expect(drawSparkline(points(0, 1, 2, 3, 4, 5, 6, 7), spanOf(8), 40)).toBe('▁▂▃▄▅▆▇█');
    expect(drawSparkline(points(0, 0.001, 100), spanOf(3), 40)).toBe('▁▂█');
    expect(drawSparkline(points(0, 0), spanOf(2), 40)).toBe('▁▁');
  });

  it('is empty where nothing was measured', () => {
    expect(drawSparkline(points(1, 1, undefined, undefined, 1), spanOf(6), 40)).toBe('██  █ ');
    expect(drawSparkline([], spanOf(6), 40)).toBe(' ');
  });

  it('shows the highest of what shares a block', () => {
    expect(drawSparkline(points(0, 7, 0, 1, 0, 0), spanOf(6), 3)).toBe('█▂▁');
  });

  it('leaves out what is before or after its time', () => {
    const outside = [{ atMs: 900, value: 9 }, ...points(1, 1), { atMs: 1020, value: 9 }];
    expect(drawSparkline(outside, spanOf(2), 40)).toBe('██');
  });
});
