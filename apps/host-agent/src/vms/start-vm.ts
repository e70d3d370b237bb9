import { chown, mkdir } from 'node:fs/promises';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { WrennError } from '@wrenn/protocol/errors';
import { asHostDiskFull } from '../disk/disk-full.ts';
import { layOverlay } from '../disk/overlay.ts';
import { initGuest } from '../guest/init-guest.ts';
import type { Journal } from '../journal/journal.ts';
import { settleAll } from '../processes/settle-all.ts';
import type { VmResources } from '../templates/make-snapshot.ts';
import type { TemplateSnapshot } from '../templates/template-store.ts';
import type { VmPlan } from './plan-vm.ts';
import { whileRunning } from './race-exit.ts';
import type { Trace } from './trace.ts';
import type { VmEntry } from './vm.ts';
import { vmFolder } from './vm-folder.ts';
import { vmSpec } from './vm-spec.ts';

/** A restored guest answers within a second; under emulation on a busy machine it may take long. */
const INIT_TIMEOUT_MS = 30_000;

/** The hypervisor could not start from a template's snapshot, as when it is damaged, or of a hypervisor built otherwise. */
export class SnapshotRefusedError extends Error {
  override readonly name = 'SnapshotRefusedError';
}

export interface StartContext {
  readonly dir: WrennDir;
  readonly journal: Journal;
  readonly resources: VmResources;
}

/**
 * Makes a running VM of a template snapshot. What it takes of the machine is in `entry` at every moment, and in the
 * journal before it is used, so that a failure or a crash at any point can be undone by what is written there.
 */
export async function startVm(
  { dir, journal, resources: { hypervisor, slots, cgroups } }: StartContext,
  entry: VmEntry,
  plan: VmPlan,
  snapshot: TemplateSnapshot,
  trace: Trace,
  signal: AbortSignal,
): Promise<void> {
  const { id, shape } = entry.record;
  const folder = vmFolder(dir.capsule(id));
  await journal.begin(entry.record);
  const [slot, disk, cgroupProcs] = await settleAll([
    trace.step('slot', async () => {
      entry.slot = await slots.acquire(signal);
      return entry.slot;
    }),
    trace.step('disk', () => layOverlay(folder.dir, snapshot.blankOverlay, snapshot.frozenDisk)),
    cgroups.create(id, shape),
    mkdir(folder.runDir, { mode: 0o700 }),
  ] as const);
  entry.record = { ...entry.record, slot: slot.index };
  await settleAll([journal.write(entry.record), chown(folder.runDir, slot.uid, slot.gid)]);
  const spec = vmSpec({
    id,
    shape,
    kernel: plan.kernel,
    disk: { path: disk, format: 'qcow2' },
    slot,
    cgroupProcs,
    runDir: folder.runDir,
  });
  const vm = await trace.step('restore', () =>
    hypervisor.restore(spec, snapshot.memory, signal).catch((error: unknown) => {
      if (signal.aborted || asHostDiskFull(error)) throw error;
      throw new SnapshotRefusedError('the hypervisor does not start from the snapshot', { cause: error });
    }),
  );
  entry.process = vm;
  entry.record = { ...entry.record, process: vm.process };
  await settleAll([
    journal.write(entry.record),
    trace.step('init', () =>
      whileRunning(vm, signal, (alive) => initWithin(INIT_TIMEOUT_MS, id, slot.hostIp, plan, alive)),
    ),
  ]);
  entry.record = { ...entry.record, phase: 'running', startedAt: new Date().toISOString(), trace: trace.steps };
  await journal.write(entry.record);
}

async function initWithin(
  timeoutMs: number,
  id: string,
  hostIp: string,
  plan: VmPlan,
  signal: AbortSignal,
): Promise<void> {
  const deadline = AbortSignal.timeout(timeoutMs);
  try {
    await initGuest(id, hostIp, plan.settings, AbortSignal.any([signal, deadline]));
  } catch (error) {
    if (!deadline.aborted || signal.aborted) throw error;
    const problem = `its guest agent did not answer within ${timeoutMs} ms.`;
    throw new WrennError('vm_start_failed', { problem }, { cause: error });
  }
}

/** What a caller is told of a start that failed. The details are in the cause, for the log. */
export function startError(error: unknown, signal: AbortSignal): unknown {
  const diskFull = asHostDiskFull(error);
  if (diskFull) return diskFull;
  if (error instanceof WrennError) return error;
  if (error instanceof SnapshotRefusedError && error.cause instanceof WrennError) return error.cause;
  if (signal.aborted) return signal.reason;
  return new WrennError(
    'vm_start_failed',
    { problem: "its host refused; the agent's log says why." },
    { cause: error },
  );
}
