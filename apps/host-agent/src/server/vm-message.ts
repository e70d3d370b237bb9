import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { type Vm, VmSchema, VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { VmRecord } from '../journal/vm-record.ts';
import { slotOf } from '../network/slot.ts';

const STATES: Record<VmRecord['phase'], VmState> = {
  creating: VmState.STARTING,
  running: VmState.RUNNING,
  destroying: VmState.STOPPING,
  failed: VmState.FAILED,
};

/** A VM as callers see it. */
export function vmMessage(record: VmRecord): Vm {
  const { slot, startedAt, reason } = record;
  return create(VmSchema, {
    id: record.id,
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
  });
}
