import type { RunningVm } from '@wrenn/hypervisor/hypervisor';
import type { Logger } from 'pino';
import { prepareGuestForSnapshot, refreshGuest } from '../guest/init-guest.ts';
import { endedMeanwhile } from './ended-meanwhile.ts';
import type { Trace } from './trace.ts';
import type { VmEntry } from './vm.ts';

/** A guest that is too busy to settle is put to sleep as it is; its memory and disk fit together all the same. */
const PREPARE_TIMEOUT_MS = 5000;
const GO_ON_TIMEOUT_MS = 30_000;

/** What a VM that runs has beside its record. */
export interface LiveVm {
  readonly vm: RunningVm;
  readonly hostIp: string;
}

/** @throws Error for an entry that is not running */
export function liveVm({ process, slot, record }: VmEntry): LiveVm {
  if (!process || !slot) throw new Error(`${record.vmId} does not run`);
  return { vm: process, hostIp: slot.hostIp };
}

/** Stops the guest's vCPUs, after it had the chance to settle. */
export async function standStill(
  entry: VmEntry,
  settle: boolean,
  trace: Trace,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  const { vm, hostIp } = liveVm(entry);
  if (settle) {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(PREPARE_TIMEOUT_MS)]);
    await trace
      .step('prepare', () => prepareGuestForSnapshot(hostIp, entry.record.accessToken, deadline))
      .catch((error: unknown) => {
        signal.throwIfAborted();
        log.warn({ vm: entry.record.id, err: error }, 'the guest did not settle; it is stopped as it is');
      });
  }
  await trace.step('stop', () => vm.pause(signal));
}

/**
 * Does something while the guest's vCPUs stand still, and lets it run again however that ended.
 *
 * @throws WrennError capsule_ended when the VM ended in the middle; what `action` throws
 */
export async function atStandstill(
  entry: VmEntry,
  settle: boolean,
  { trace, log, signal }: { readonly trace: Trace; readonly log: Logger; readonly signal: AbortSignal },
  action: () => Promise<void>,
): Promise<void> {
  const { vm } = liveVm(entry);
  try {
    try {
      await standStill(entry, settle, trace, log, signal);
      await action();
    } finally {
      await trace.step('go on', () => goOn(entry, log));
    }
  } catch (error) {
    signal.throwIfAborted();
    throw await endedMeanwhile(entry.record.id, vm, error);
  }
}

/** Lets a guest that stood still run again, and sets its clock. Not bound to the caller's signal: it must go on. */
export async function goOn(entry: VmEntry, log: Logger): Promise<void> {
  const { vm, hostIp } = liveVm(entry);
  const signal = AbortSignal.timeout(GO_ON_TIMEOUT_MS);
  await vm.resume(signal);
  await refreshGuest(entry.record.id, hostIp, entry.record.accessToken, signal).catch((error: unknown) => {
    log.warn({ vm: entry.record.id, err: error }, 'the clock of a guest that stood still could not be set');
  });
}
