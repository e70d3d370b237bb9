import type { VmRecord } from '../journal/vm-record.ts';
import type { SleepingVm } from '../snapshots/snapshot-store.ts';

/** What this host has of a capsule: a VM, a generation to wake it from, or both. */
export interface VmView {
  readonly id: string;
  readonly record: VmRecord | undefined;
  readonly sleeping: SleepingVm | undefined;
}
