import type { RunningVm, VmShape } from '@wrenn/hypervisor/hypervisor';
import type { VmRecord } from '../journal/vm-record.ts';
import type { Slot } from '../network/slot.ts';

/** What the guest is told. Empty texts mean the defaults of what it is made of. */
export interface GuestInit {
  readonly accessToken: string;
  readonly envs: Readonly<Record<string, string>>;
  readonly user: string;
  readonly workdir: string;
  readonly hostname: string;
}

/** What a caller wants a new VM to be. */
export interface VmRequest {
  readonly id: string;
  readonly template: string;
  /** Start from this snapshot of a user; shape and disk are the snapshot's then. */
  readonly snapshotId?: string;
  /** Where the template or snapshot is in the object store, when the host may not have it. */
  readonly objectKey?: string;
  readonly shape: VmShape;
  /** 0 is the template's own size. */
  readonly diskMb: number;
  readonly init: GuestInit;
}

/** A VM that the agent has, with what only lives in memory. */
export interface VmEntry {
  record: VmRecord;
  /** What it holds of the machine, as far as it has it yet. */
  slot?: Slot;
  process?: RunningVm;
  /** Fires when connections to the guest must end. */
  ended: AbortController;
  /** The merging of its layers that is under way. */
  compaction?: { readonly stop: AbortController; readonly done: Promise<void> };
}
