import { expect, it } from 'vitest';
import { reportStep } from './progress.ts';
import { plainOutput } from './progress-output.ts';

it('writes a line when a step begins and one when it ends, and no more', async () => {
  const lines: string[] = [];
  using output = plainOutput((line) => lines.push(line));
  await reportStep(output.onProgress, 'kernel', async (note) => {
    note('unpacking');
    note('modules');
    return { detail: 'vmlinux-6.1.0' };
  });
  await reportStep(output.onProgress, 'envd', async () => ({ cached: true }));
  expect(lines).toEqual([
    '  kernel ...',
    expect.stringMatching(/^✓ kernel: vmlinux-6\.1\.0 \(\d+\.\d s\)$/),
    '  envd ...',
    '✓ envd (unchanged)',
  ]);
});
