import type { GuestKernel } from '@wrenn/guest-image/catalog';
import type { VmShape, VmSpec } from '@wrenn/hypervisor/hypervisor';
import { GUEST, type Slot } from '../network/slot.ts';

export interface VmParts {
  readonly id: string;
  readonly shape: VmShape;
  readonly kernel: GuestKernel;
  readonly disk: VmSpec['disk'];
  readonly slot: Slot;
  readonly cgroupProcs: readonly string[];
  readonly runDir: string;
}

/** What the hypervisor is told to make of a VM's parts. */
export function vmSpec({ id, shape, kernel, disk, slot, cgroupProcs, runDir }: VmParts): VmSpec {
  return {
    id,
    shape,
    kernelPath: kernel.vmlinuxPath,
    initramfsPath: kernel.initramfsPath,
    disk,
    network: { namespacePath: slot.namespacePath, tap: GUEST.tap, mac: GUEST.mac },
    uid: slot.uid,
    gid: slot.gid,
    cgroupProcs,
    runDir,
  };
}
