import type { RunningVm } from '@wrenn/hypervisor/hypervisor';
import type { VmRecord } from '../journal/vm-record.ts';
import type { Slot } from '../network/slot.ts';

/** What a caller wants a VM to be. */
export interface VmRequest {
  readonly id: string;
  readonly template: string;
  readonly shape: { readonly vcpus: number; readonly memoryMb: number };
  /** 0 is the template's own size. */
  readonly diskMb: number;
  /** Empty texts mean the template's defaults. */
  readonly init: {
    readonly accessToken: string;
    readonly envs: Readonly<Record<string, string>>;
    readonly user: string;
    readonly workdir: string;
    readonly hostname: string;
  };
}

/** A VM that the agent has, with what only lives in memory. */
export interface VmEntry {
  record: VmRecord;
  /** What it holds of the machine, as far as it has it yet. */
  slot?: Slot;
  process?: RunningVm;
  /** Fires when connections to the guest must end. */
  readonly ended: AbortController;
}
