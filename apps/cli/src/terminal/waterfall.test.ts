import { stripVTControlCharacters } from 'node:util';
import type { CapsuleTrace } from '@wrenn/protocol/rest/capsule';
import { describe, expect, it } from 'vitest';
import { drawWaterfall } from './waterfall.ts';

const TRACE: CapsuleTrace = {
  kind: 'create',
  started_at: '2026-03-01T09:00:00.000Z',
  duration_ms: 400,
  steps: [
    { name: 'first answer', where: 'control-plane', offset_ms: 380, duration_ms: 20 },
    { name: 'queue', where: 'control-plane', offset_ms: 0, duration_ms: 4.25 },
    { name: 'slot', where: 'host', offset_ms: 4, duration_ms: 96 },
    { name: 'disk', where: 'host', offset_ms: 4, duration_ms: 36 },
    { name: 'restore', where: 'host', offset_ms: 100, duration_ms: 200 },
  ],
};

const draw = (trace: CapsuleTrace, width: number) => stripVTControlCharacters(drawWaterfall(trace, width)).split('\n');

describe('drawWaterfall', () => {
  it('shows a line for each step in the order of their beginnings, with bars where they were', () => {
    expect(draw(TRACE, 83)).toEqual([
      'STEP          BY               TIME  SHARE  0                                400 ms',
      'queue         control plane  4.3 ms     1%  ▒',
      'slot          host            96 ms    24%  ██████████',
      'disk          host            36 ms     9%  ████',
      'restore       host           200 ms    50%           ████████████████████',
      'first answer  control plane   20 ms     5%                                       ▒▒',
      '(in no step)                  80 ms    20%',
      'all                          400 ms   100%',
    ]);
  });

  it.each([60, 80, 120, 250])('fits a terminal of %d columns', (width) => {
    for (const line of draw(TRACE, width)) expect([...line].length).toBeLessThanOrEqual(width);
  });

  it('keeps a bar in a narrow terminal, and shows steps that took no time at the very end', () => {
    const steps = [{ name: 'x'.repeat(90), where: 'host' as const, offset_ms: 50, duration_ms: 0 }];
    const [, step] = draw({ ...TRACE, duration_ms: 50, steps }, 20);
    expect(step).toMatch(/^x{31}… {2}host +0\.0 ms +0% {11}█$/);
  });

  it('draws a start without any time', () => {
    const steps = [{ name: 'all at once', where: 'host' as const, offset_ms: 0, duration_ms: 0 }];
    expect(draw({ ...TRACE, duration_ms: 0, steps }, 80)[1]).toMatch(/0\.0 ms +- +█$/);
  });
});
