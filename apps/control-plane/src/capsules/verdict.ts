import { type Vm, VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import type { Capsule } from '../database/schema.ts';
import { holdsGeneration, lostGeneration } from './vm-facts.ts';

/** What is to be done where a capsule and its host's microVM do not agree. */
export type Verdict =
  | { readonly do: 'nothing' }
  /** The capsule becomes what its host says. */
  | { readonly do: 'follow' }
  /** Nothing of it is left that could go on by itself. */
  | { readonly do: 'fail'; readonly reason: string }
  /** Its microVM ended by itself. `keep`: its host holds a generation that it can be resumed from. */
  | { readonly do: 'record crash'; readonly keep: boolean }
  /** It is to be ended, as was asked once. */
  | { readonly do: 'end' }
  /** The host is to destroy what it has. */
  | { readonly do: 'remove' }
  /** The host is to free its copy of a generation that is in the object store. */
  | { readonly do: 'forget' };

/** Why a capsule is an error whose operation found no end. */
export const LEFT_BEHIND = 'it was left in the middle of an operation';

const NOTHING = { do: 'nothing' } as const;

/** States that an operation brought about and will lead out of. */
export const BUSY: readonly CapsuleStatus[] = [
  'pending',
  'starting',
  'pausing',
  'hibernating',
  'resuming',
  'forking',
  'stopping',
];

/**
 * Compares a capsule that no operation works on with what its host has of it. The host is right about which microVMs
 * there are, the database about which there should be; a generation is never given up while its capsule exists.
 *
 * @param vm undefined when the host has nothing
 */
export function judge(capsule: Capsule, vm: Vm | undefined): Verdict {
  switch (capsule.status) {
    case 'running':
    case 'missing':
      return judgeRunning(capsule, vm);
    case 'paused':
      return judgePaused(capsule, vm);
    case 'hibernated':
      return judgeHibernated(vm);
    case 'error':
      return judgeFailed(capsule, vm);
    case 'stopped':
      return vm && vm.state !== VmState.STOPPING ? { do: 'remove' } : NOTHING;
    // What follows was left behind by an operation that found no end.
    case 'stopping':
      return { do: 'end' };
    case 'pending':
      return { do: 'fail', reason: LEFT_BEHIND };
    default:
      return { do: 'follow' };
  }
}

function judgeRunning(capsule: Capsule, vm: Vm | undefined): Verdict {
  switch (vm?.state) {
    case undefined:
      return { do: 'fail', reason: 'its host no longer has its microVM' };
    case VmState.RUNNING:
      return capsule.status === 'missing' ? { do: 'follow' } : NOTHING;
    case VmState.PAUSED:
      return { do: 'follow' };
    case VmState.FAILED:
      return { do: 'record crash', keep: vm.generation > 0 };
    default:
      return NOTHING;
  }
}

function judgePaused(capsule: Capsule, vm: Vm | undefined): Verdict {
  switch (vm?.state) {
    case undefined:
      return { do: 'fail', reason: 'its host no longer has its snapshot' };
    case VmState.RUNNING:
      return { do: 'follow' };
    case VmState.PAUSED:
    case VmState.FAILED:
      // A failed start took nothing from what it sleeps on.
      return holdsGeneration(vm, capsule) ? NOTHING : { do: 'fail', reason: lostGeneration(vm, capsule) };
    default:
      return NOTHING;
  }
}

function judgeHibernated(vm: Vm | undefined): Verdict {
  switch (vm?.state) {
    case VmState.PAUSED:
      return { do: 'forget' };
    case VmState.FAILED:
      return { do: 'remove' };
    case VmState.RUNNING:
      return { do: 'follow' };
    default:
      return NOTHING;
  }
}

function judgeFailed(capsule: Capsule, vm: Vm | undefined): Verdict {
  switch (vm?.state) {
    case VmState.PAUSED:
      return holdsGeneration(vm, capsule) ? { do: 'follow' } : NOTHING;
    case VmState.RUNNING:
      return capsule.generation > 0 ? { do: 'follow' } : { do: 'remove' };
    case VmState.FAILED:
      return vm.generation > 0 ? NOTHING : { do: 'remove' };
    default:
      return NOTHING;
  }
}
