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
  /** The capsule runs elsewhere: it must not run here too, nor be lost. */
  | { readonly do: 'put to sleep' }
  /** The host is to free its copy of a generation that is in the object store. */
  | { readonly do: 'forget' };

/** Why a capsule is an error whose operation found no end. */
export const LEFT_BEHIND = 'it was left in the middle of an operation';

const NOTHING = { do: 'nothing' } as const;

/** What counts of a capsule, and of a microVM. */
export type Judged = Pick<Capsule, 'status' | 'generation'>;
export type VmFacts = Pick<Vm, 'state' | 'generation'>;

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
export function judge(capsule: Judged, vm: VmFacts | undefined): Verdict {
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

/**
 * The same where the capsule's host is another one: it was hibernated and woke there. Whoever has it now is right, and
 * what this host has is of the past; but nothing is removed that could be newer.
 */
export function judgeElsewhere(capsule: Judged, vm: VmFacts | undefined): Verdict {
  const isOld = vm !== undefined && vm.generation <= capsule.generation;
  switch (capsule.status) {
    case 'stopped':
      return judge(capsule, vm);
    case 'hibernated':
      // Nobody else has it: it woke here, and only the news of it were lost.
      if (vm?.state === VmState.RUNNING && vm.generation >= capsule.generation) return { do: 'follow' };
      return vm?.state === VmState.PAUSED && isOld ? { do: 'forget' } : NOTHING;
    case 'running':
    case 'paused':
      if (vm?.state === VmState.RUNNING) return { do: 'put to sleep' };
      return vm?.state === VmState.PAUSED && isOld ? { do: 'forget' } : NOTHING;
    default:
      return NOTHING;
  }
}

function judgeRunning(capsule: Judged, vm: VmFacts | undefined): Verdict {
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

function judgePaused(capsule: Judged, vm: VmFacts | undefined): Verdict {
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

function judgeHibernated(vm: VmFacts | undefined): Verdict {
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

function judgeFailed(capsule: Judged, vm: VmFacts | undefined): Verdict {
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
