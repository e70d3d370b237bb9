import { once } from 'node:events';
import { patientTimeout } from '@wrenn/config/patient-timeout';
import type { RunningVm } from '@wrenn/hypervisor/hypervisor';
import { WrennError } from '@wrenn/protocol/errors';
import { asHostDiskFull } from '../disk/disk-full.ts';

/** A process that is killed closes its connections a moment before it has ended. */
const END_TIMEOUT_MS = 1000;

/** Why something that was done to a running VM failed: capsule_ended where the VM ended in its middle. */
export async function endedMeanwhile(id: string, vm: RunningVm, error: unknown): Promise<unknown> {
  if (error instanceof WrennError || asHostDiskFull(error)) return error;
  using limit = patientTimeout(END_TIMEOUT_MS);
  const hasEnded = await Promise.race([vm.exited.then(() => true), once(limit.signal, 'abort').then(() => false)]);
  if (!hasEnded) return error;
  return new WrennError('capsule_ended', { id, problem: 'its process ended meanwhile.' }, { cause: error });
}
