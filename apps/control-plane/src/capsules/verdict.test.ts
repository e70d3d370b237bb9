import { create } from '@bufbuild/protobuf';
import { VmSchema, VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { CAPSULE_STATUSES, type CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import { describe, expect, it } from 'vitest';
import type { Capsule } from '../database/schema.ts';
import { judge } from './verdict.ts';

const capsule = (status: CapsuleStatus, generation = 0) => ({ status, generation }) as Capsule;
const vm = (state: VmState, generation = 0) => create(VmSchema, { state, generation });
const { RUNNING, PAUSED, FAILED, STARTING, STOPPING, PAUSING } = VmState;

describe('judge', () => {
  it.each([
    // A running capsule is what its host says.
    ['running', 0, vm(RUNNING), 'nothing'],
    ['missing', 0, vm(RUNNING), 'follow'],
    ['running', 0, vm(PAUSED, 1), 'follow'],
    ['missing', 1, vm(PAUSED, 2), 'follow'],
    ['running', 0, vm(STARTING), 'nothing'],
    ['running', 0, undefined, 'fail'],
    ['missing', 3, undefined, 'fail'],
    // A sleeping one is safe as long as its host has its generation, whatever else it has.
    ['paused', 2, vm(PAUSED, 2), 'nothing'],
    ['paused', 2, vm(FAILED, 2), 'nothing'],
    ['paused', 2, vm(RUNNING, 2), 'follow'],
    ['paused', 2, vm(PAUSED, 1), 'fail'],
    ['paused', 2, vm(FAILED, 0), 'fail'],
    ['paused', 2, undefined, 'fail'],
    // In the object store it is safe without a host.
    ['hibernated', 2, undefined, 'nothing'],
    ['hibernated', 2, vm(PAUSED, 2), 'forget'],
    ['hibernated', 2, vm(FAILED, 2), 'remove'],
    ['hibernated', 2, vm(RUNNING, 2), 'follow'],
    // One that failed comes back with what it slept on; without that its microVM is of no use.
    ['error', 2, vm(PAUSED, 2), 'follow'],
    ['error', 2, vm(PAUSED, 1), 'nothing'],
    ['error', 2, vm(FAILED, 2), 'nothing'],
    ['error', 2, vm(RUNNING, 2), 'follow'],
    ['error', 0, vm(FAILED), 'remove'],
    ['error', 0, vm(RUNNING), 'remove'],
    ['error', 2, undefined, 'nothing'],
    ['stopped', 2, vm(PAUSED, 2), 'remove'],
    ['stopped', 0, vm(RUNNING), 'remove'],
    ['stopped', 0, vm(STOPPING), 'nothing'],
    ['stopped', 0, undefined, 'nothing'],
    // What an operation left behind.
    ['stopping', 0, vm(RUNNING), 'end'],
    ['pending', 0, undefined, 'fail'],
    ['pausing', 1, vm(RUNNING, 1), 'follow'],
    ['resuming', 1, vm(PAUSED, 1), 'follow'],
  ] as const)('%s of generation %i, and its host has %s: %s', (status, generation, had, verdict) => {
    expect(judge(capsule(status, generation), had).do).toBe(verdict);
  });

  it('tells a crash that leaves a generation from one that leaves nothing', () => {
    expect(judge(capsule('running'), vm(FAILED))).toEqual({ do: 'record crash', keep: false });
    expect(judge(capsule('running', 1), vm(FAILED, 1))).toEqual({ do: 'record crash', keep: true });
  });

  it('has no capsule that exists destroyed whose host holds a generation', () => {
    const alive = CAPSULE_STATUSES.filter((status) => status !== 'stopped' && status !== 'hibernated');
    for (const status of alive) {
      for (const state of [RUNNING, PAUSED, FAILED, STARTING, STOPPING, PAUSING]) {
        expect(judge(capsule(status, 1), vm(state, 1)).do, `${status}, ${VmState[state]}`).not.toMatch(/remove|forget/);
      }
    }
  });
});
