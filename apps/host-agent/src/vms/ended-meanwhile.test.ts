import type { RunningVm, VmExit } from '@wrenn/hypervisor/hypervisor';
import { WrennError } from '@wrenn/protocol/errors';
import { expect, it } from 'vitest';
import { endedMeanwhile } from './ended-meanwhile.ts';

const vmThatEnds = (exited: Promise<VmExit>) => ({ exited }) as RunningVm;
const broken = new Error('the connection broke');

it('tells a VM that was killed from a VM that runs on', async () => {
  const { promise, resolve } = Promise.withResolvers<VmExit>();
  const problem = endedMeanwhile('cl-1', vmThatEnds(promise), broken);
  // The connection is seen to break first.
  resolve({ reason: 'killed', detail: 'by a test' });
  expect(await problem).toMatchObject({ code: 'capsule_ended', cause: broken });
  expect(await endedMeanwhile('cl-1', vmThatEnds(new Promise(() => undefined)), broken)).toBe(broken);
});

it('knows a VM that was killed also where it stood still itself meanwhile', async () => {
  const { promise, resolve } = Promise.withResolvers<VmExit>();
  const problem = endedMeanwhile('cl-1', vmThatEnds(promise), broken);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500);
  // What happened meanwhile is seen after the timers that are due.
  setImmediate(() => setImmediate(() => resolve({ reason: 'killed', detail: 'by a test' })));
  expect(await problem).toMatchObject({ code: 'capsule_ended' });
});

it('leaves what is known of a failure as it is', async () => {
  const ended = vmThatEnds(Promise.resolve({ reason: 'killed', detail: 'by a test' }));
  const known = new WrennError('object_store_failed');
  expect(await endedMeanwhile('cl-1', ended, known)).toBe(known);
});
