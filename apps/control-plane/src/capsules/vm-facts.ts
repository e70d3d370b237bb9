import { timestampDate } from '@bufbuild/protobuf/wkt';
import { type Vm, VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { Db } from '../database/database.ts';
import type { Capsule } from '../database/schema.ts';
import type { GuestInit } from '../hosts/host.ts';
import { isLegalMove, LostRaceError, type TransitionChanges, transition } from './transition.ts';

/** The address that every guest has itself; see DESIGN of the host's network. */
const GUEST_IP = '169.254.0.21';

/** What /init tells the guest of a capsule. */
export function guestInit({ id, accessToken, envs }: Capsule): GuestInit {
  return { accessToken, envs, hostname: id };
}

/** What the host knows about a running microVM. */
export function vmChanges(vm: Vm): TransitionChanges {
  return { guestIp: GUEST_IP, hostIp: vm.hostIp, diskMb: vm.diskMb, versions: { ...vm.versions } };
}

/** The same for one that was just started. */
export function startChanges(vm: Vm): TransitionChanges {
  return {
    ...vmChanges(vm),
    startedAt: vm.startedAt ? timestampDate(vm.startedAt) : new Date(),
    lastActiveAt: new Date(),
    memoryDiscarded: vm.memoryDiscarded,
    consoleTail: null,
  };
}

/** What the host knows about a sleeping microVM. */
export function sleepChanges(vm: Vm): TransitionChanges {
  return {
    generation: vm.generation,
    sleptAt: vm.sleptAt ? timestampDate(vm.sleptAt) : new Date(),
    snapshotBytes: Number(vm.snapshotBytes),
    snapshotProblem: vm.snapshotProblem === '' ? null : vm.snapshotProblem,
    hostIp: null,
    objectKey: null,
  };
}

/** Whether a host holds the last generation of a capsule, so that it can be resumed there whatever runs. */
export function holdsGeneration(
  vm: Pick<Vm, 'generation'> | undefined,
  { generation }: Pick<Capsule, 'generation'>,
): boolean {
  return vm !== undefined && vm.generation > 0 && vm.generation >= generation;
}

/** Why a capsule cannot go on from what its host has of it. */
export function lostGeneration(vm: Pick<Vm, 'generation'>, { generation }: Pick<Capsule, 'generation'>): string {
  return `its host has generation ${vm.generation} of it and not the last one, ${generation}`;
}

/** Whether somebody could have used it until now; else its idle time begins anew. */
function couldBeUsed({ status }: Capsule): boolean {
  return status === 'running' || status === 'pausing' || status === 'forking';
}

/**
 * Moves a capsule out of a state that nobody works in any more, to what its host says it is.
 *
 * @param vm undefined when the host does not know it
 * @param reason why it is an error, if it is one and the host gives no reason
 * @param hostId the host that says so, which from now on is the capsule's
 * @returns the capsule after the move; undefined when somebody else moved it, or its host is still at work
 */
export async function followHost(
  db: Db,
  seen: Capsule,
  vm: Vm | undefined,
  reason: string,
  hostId = seen.hostId,
): Promise<Capsule | undefined> {
  const to = (status: Capsule['status'], changes: TransitionChanges) =>
    isLegalMove(seen.status, status)
      ? transition(db, seen, status, changes)
      : transition(db, seen, 'error', { statusReason: reason });
  try {
    switch (vm?.state) {
      case VmState.RUNNING:
        return await to('running', {
          ...vmChanges(vm),
          hostId,
          ...(couldBeUsed(seen) ? {} : { lastActiveAt: new Date() }),
        });
      case VmState.PAUSED:
        if (holdsGeneration(vm, seen)) return await to('paused', sleepChanges(vm));
        return await to('error', { statusReason: lostGeneration(vm, seen), hostIp: null });
      case VmState.STARTING:
      case VmState.PAUSING:
        return undefined;
      default:
        if (!vm && seen.objectKey) return await to('hibernated', { hostIp: null });
        return await to('error', { statusReason: vm?.reason || reason, hostIp: null });
    }
  } catch (error) {
    if (error instanceof LostRaceError) return undefined;
    throw error;
  }
}
