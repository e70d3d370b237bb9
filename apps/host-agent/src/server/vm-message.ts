import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { type Snapshot, SnapshotSchema, type Vm, VmSchema, VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { VmRecord } from '../journal/vm-record.ts';
import { slotOf } from '../network/slot.ts';
import type { SleepingVm } from '../snapshots/snapshot-store.ts';
import type { VmView } from '../vms/vm-view.ts';

const STATES: Record<VmRecord['phase'], VmState> = {
  pooled: VmState.STARTING,
  creating: VmState.STARTING,
  running: VmState.RUNNING,
  pausing: VmState.PAUSING,
  destroying: VmState.STOPPING,
  failed: VmState.FAILED,
};

/** A VM as callers see it. */
export function vmMessage({ id, record, sleeping }: VmView): Vm {
  return create(VmSchema, {
    id,
    ...(sleeping ? sleepFields(sleeping) : {}),
    ...(record ? vmFields(record) : { state: VmState.PAUSED }),
  });
}

function vmFields(record: VmRecord) {
  const { slot, startedAt, reason } = record;
  return {
    state: STATES[record.phase],
    template: record.template,
    shape: record.shape,
    diskMb: record.diskMb,
    hostIp: slot === undefined ? '' : slotOf(slot).hostIp,
    createdAt: timestampFromDate(new Date(record.createdAt)),
    ...(startedAt === undefined ? {} : { startedAt: timestampFromDate(new Date(startedAt)) }),
    reasonCode: reason?.code ?? '',
    reason: reason?.text ?? '',
    versions: record.versions,
    trace: record.trace,
    memoryDiscarded: record.memoryDiscarded,
  };
}

function sleepFields({ generation, manifest, ownBytes, problem }: SleepingVm) {
  const created = manifest?.capsuleCreatedAt;
  return {
    generation,
    snapshotBytes: BigInt(ownBytes),
    snapshotProblem: problem?.message ?? '',
    snapshotProblemCode: problem?.code ?? '',
    ...(manifest
      ? {
          template: manifest.template,
          shape: manifest.shape,
          diskMb: manifest.diskMb,
          versions: manifest.versions,
          sleptAt: timestampFromDate(new Date(manifest.createdAt)),
        }
      : {}),
    ...(created === undefined ? {} : { createdAt: timestampFromDate(new Date(created)) }),
  };
}

/** A user's snapshot as callers see it. */
export function snapshotMessage({ id, manifest, ownBytes }: SleepingVm): Snapshot {
  return create(SnapshotSchema, {
    id,
    sizeBytes: BigInt(ownBytes),
    ...(manifest
      ? {
          template: manifest.template,
          shape: manifest.shape,
          diskMb: manifest.diskMb,
          createdAt: timestampFromDate(new Date(manifest.createdAt)),
        }
      : {}),
  });
}
