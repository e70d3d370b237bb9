import { expect, it } from 'vitest';
import { chaosLine, chaosRun } from './chaos-run.ts';

const KILLS = 12;

it('loses, wedges and leaves nothing while its processes are killed and its disk is full', async () => {
  const lines: string[] = [];
  const result = await chaosRun({
    seed: 20_261_122,
    kills: KILLS,
    fills: 1,
    clients: 2,
    limits: { running: 2, capsules: 4, snapshots: 1 },
    diskMb: 3 * 1024,
    tell: (line) => lines.push(line),
  });
  expect(chaosLine(result), lines.join('\n')).toBe(`chaos: ${KILLS} kills, 0 lost, 0 stuck, 0 orphans`);
  expect(result.unexpected).toEqual([]);
  expect(result.deeds, 'else there was nothing that kills could hit').toBeGreaterThan(KILLS / 2);
});
