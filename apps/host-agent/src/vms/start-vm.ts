import { chown, mkdir } from 'node:fs/promises';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import type { GuestKernel } from '@wrenn/guest-image/catalog';
import type { RunningVm, VmSpec } from '@wrenn/hypervisor/hypervisor';
import { WrennError } from '@wrenn/protocol/errors';
import { diskOf, layDisk } from '../disk/disk-chain.ts';
import { asHostDiskFull } from '../disk/disk-full.ts';
import { type GuestSettings, initGuest } from '../guest/init-guest.ts';
import type { Journal } from '../journal/journal.ts';
import type { Slot } from '../network/slot.ts';
import { settleAll } from '../processes/settle-all.ts';
import type { StartSource } from '../snapshots/start-source.ts';
import type { VmResources } from '../templates/make-snapshot.ts';
import { whileRunning } from './race-exit.ts';
import type { Trace } from './trace.ts';
import type { VmEntry } from './vm.ts';
import { vmFolder } from './vm-folder.ts';
import { vmSpec } from './vm-spec.ts';

/** A restored guest answers within a second, one that boots within 20; under emulation on a busy machine it may take long. */
const INIT_TIMEOUT_MS = { restored: 60_000, booted: 90_000 } as const;

/** The hypervisor could not start from a snapshot, as when it is damaged, or of a hypervisor built otherwise. */
export class SnapshotRefusedError extends Error {
  override readonly name = 'SnapshotRefusedError';
}

export interface StartContext {
  readonly dir: WrennDir;
  readonly journal: Journal;
  readonly resources: VmResources;
  /** Gives up something that holds a network slot; false when nothing more can be given up. */
  readonly makeRoom?: () => Promise<boolean>;
}

export interface VmStart {
  readonly source: StartSource;
  readonly kernel: GuestKernel;
  readonly settings: GuestSettings;
}

/** Makes a running VM of a snapshot, as `bringUp`, and says in the journal that it runs. */
export async function startVm(
  context: StartContext,
  entry: VmEntry,
  start: VmStart,
  trace: Trace,
  signal: AbortSignal,
): Promise<void> {
  await bringUp(context, entry, start, trace, signal);
  entry.record = { ...entry.record, phase: 'running', startedAt: new Date().toISOString(), trace: trace.steps };
  await context.journal.write(entry.record);
}

/**
 * Makes a VM of a snapshot, up to the moment when its guest has confirmed its settings. What it takes of the machine is
 * in `entry` at every moment, and in the journal before it is used, so that a failure or a crash at any point can be
 * undone by what is written there.
 */
export async function bringUp(
  context: StartContext,
  entry: VmEntry,
  start: VmStart,
  trace: Trace,
  signal: AbortSignal,
): Promise<void> {
  const { journal, resources } = context;
  await journal.begin(entry.record);
  const asked = performance.now();
  await resources.starts.take(async () => {
    trace.add('turn', asked);
    await startInTurn(context, entry, start, trace, signal);
  }, signal);
}

async function startInTurn(
  context: StartContext,
  entry: VmEntry,
  { source, kernel, settings }: VmStart,
  trace: Trace,
  signal: AbortSignal,
): Promise<void> {
  const { dir, journal, resources } = context;
  const { cgroups } = resources;
  const { id, vmId, shape } = entry.record;
  const folder = vmFolder(dir.capsule(vmId));
  const [slot, , cgroupProcs] = await settleAll([
    trace.step('slot', async () => {
      entry.slot = await acquireSlot(context, signal);
      return entry.slot;
    }),
    trace.step('disk', () => layDisk(source.dir, folder.dir, source.layers)),
    cgroups.create(vmId, shape),
    mkdir(folder.runDir, { mode: 0o700 }),
  ] as const);
  entry.record = { ...entry.record, slot: slot.index };
  await settleAll([journal.write(entry.record), chown(folder.runDir, slot.uid, slot.gid)]);
  const disk = diskOf(folder.dir, source.layers);
  const spec = vmSpec({ id: vmId, shape, kernel, disk, slot, cgroupProcs, runDir: folder.runDir });
  const vm = await trace.step(source.memory ? 'restore' : 'boot', () => launch(resources, spec, source, signal));
  entry.process = vm;
  entry.record = { ...entry.record, process: vm.process };
  await settleAll([
    journal.write(entry.record),
    trace.step('init', () => confirm(id, vm, slot.hostIp, settings, source, signal)),
  ]);
}

async function acquireSlot({ resources, makeRoom }: StartContext, signal: AbortSignal): Promise<Slot> {
  for (;;) {
    try {
      return await resources.slots.acquire(signal);
    } catch (error) {
      const noneLeft = error instanceof WrennError && error.code === 'no_hosts_available';
      if (!noneLeft || !(await makeRoom?.())) throw error;
    }
  }
}

async function launch(
  { hypervisor }: VmResources,
  spec: VmSpec,
  { memory }: StartSource,
  signal: AbortSignal,
): Promise<RunningVm> {
  if (!memory) return hypervisor.boot(spec, signal);
  try {
    return await hypervisor.restore(spec, memory, signal);
  } catch (error) {
    if (signal.aborted || asHostDiskFull(error)) throw error;
    throw new SnapshotRefusedError('the hypervisor does not start from the snapshot', { cause: error });
  }
}

/** Makes the guest this capsule's own; it counts as running only when it has confirmed that. */
async function confirm(
  id: string,
  vm: RunningVm,
  hostIp: string,
  settings: GuestSettings,
  { memory }: StartSource,
  signal: AbortSignal,
): Promise<void> {
  const timeoutMs = memory ? INIT_TIMEOUT_MS.restored : INIT_TIMEOUT_MS.booted;
  const deadline = AbortSignal.timeout(timeoutMs);
  try {
    await whileRunning(vm, signal, (alive) => initGuest(id, hostIp, settings, AbortSignal.any([alive, deadline])));
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
