import { patientTimeout } from '@wrenn/config/patient-timeout';
import { initGuest } from '../guest/init-guest.ts';
import type { VmRecord } from '../journal/vm-record.ts';
import { settleAll } from '../processes/settle-all.ts';
import { whileRunning } from '../vms/race-exit.ts';
import type { StartContext } from '../vms/start-vm.ts';
import type { Trace } from '../vms/trace.ts';
import type { GuestInit, VmEntry } from '../vms/vm.ts';
import { guestSettings } from '../vms/vm-settings.ts';
import type { PooledVm } from './pooled-vm.ts';

/** It has answered before; one that does not answer soon is not waited for when another can be started. */
const HAND_OVER_TIMEOUT_MS = 5000;

export interface Tenant {
  /** The capsule's first record, which takes over what the VM has. */
  readonly record: VmRecord;
  readonly init: GuestInit;
}

/**
 * Makes a VM that was taken from the pool a tenant's own. Until the last record is written it is nobody's on disk, so
 * after a crash the next agent ends it.
 *
 * @throws whatever went wrong; the VM is the caller's to discard then
 */
export async function handOver(
  { journal }: StartContext,
  vm: PooledVm,
  { record, init }: Tenant,
  trace: Trace,
  signal: AbortSignal,
): Promise<VmEntry> {
  const { entry, token } = vm;
  const { process, slot } = entry;
  const { vmId, process: processRecord } = entry.record;
  if (!process || !slot || !processRecord) throw new Error(`${vmId} does not run`);
  entry.record = { ...record, vmId, slot: slot.index, process: processRecord };
  const settings = guestSettings(record.id, init, record.defaults, token);
  using limit = patientTimeout(HAND_OVER_TIMEOUT_MS);
  const deadline = AbortSignal.any([signal, limit.signal]);
  await settleAll([
    journal.write(entry.record),
    whileRunning(process, deadline, async (alive) => {
      await trace.step('pool', () => process.resume(alive));
      await trace.step('init', () => initGuest(record.id, slot.hostIp, settings, alive));
    }),
  ]);
  entry.record = { ...entry.record, phase: 'running', startedAt: new Date().toISOString(), trace: trace.steps };
  await journal.write(entry.record);
  return entry;
}
