import { once } from 'node:events';
import { expect, it } from 'vitest';
import { CliError } from '../cli-error.ts';
import { together } from './together.ts';

const never = new AbortController().signal;

it('aborts the other parts, waits for them, and tells the failure that says most', async () => {
  let cleaned = false;
  const copying = together(
    never,
    async () => {
      throw new Error('EPIPE');
    },
    async (signal) => {
      await once(signal, 'abort');
      cleaned = true;
      throw new CliError('the disk is full');
    },
  );
  await expect(copying).rejects.toThrow('the disk is full');
  expect(cleaned).toBe(true);
});

it('tells the interruption when that ended it', async () => {
  const controller = new AbortController();
  const copying = together(controller.signal, async (signal) => {
    await once(signal, 'abort');
    throw new CliError('a connection broke');
  });
  controller.abort(new Error('Ctrl-C'));
  await expect(copying).rejects.toThrow('Ctrl-C');
});
