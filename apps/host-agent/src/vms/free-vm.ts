import { killProcess } from '@wrenn/hypervisor/vm-process';
import type { VmResources } from '../templates/make-snapshot.ts';
import type { VmEntry } from './vm.ts';

/**
 * Ends a VM's process and gives back its cgroup and its slot, in this order: each is only free when the one before
 * it is gone. Idempotent.
 */
export async function freeVm({ slots, cgroups }: VmResources, entry: VmEntry): Promise<void> {
  entry.ended.abort();
  if (entry.process) await entry.process.kill();
  else if (entry.record.process) await killProcess(entry.record.process);
  await cgroups.remove(entry.record.vmId);
  if (entry.slot) await slots.release(entry.slot);
  delete entry.slot;
}
