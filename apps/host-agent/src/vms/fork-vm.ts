import { randomBytes } from 'node:crypto';
import { WrennError } from '@wrenn/protocol/errors';
import { nextLayer } from '../disk/disk-chain.ts';
import { asHostDiskFull } from '../disk/disk-full.ts';
import { makeRoom } from '../pool/take-or-run.ts';
import { snapshotFolder } from '../snapshots/sealed-folder.ts';
import type { StartSource } from '../snapshots/start-source.ts';
import { sharedSums, takeSnapshot } from '../snapshots/take-snapshot.ts';
import { checkShape, hostCapacity } from './check-spec.ts';
import { stopCompaction } from './compact-disk.ts';
import { newRecord } from './new-record.ts';
import { requireKernel } from './plan-vm.ts';
import { runVm, StartFailedError } from './run-vm.ts';
import { atStandstill, liveVm } from './stand-still.ts';
import { Trace } from './trace.ts';
import type { GuestInit, VmEntry } from './vm.ts';
import type { VmContext } from './vm-context.ts';

export interface ForkChild {
  readonly id: string;
  readonly init: GuestInit;
}

/** Children that are started at once; more only wait for each other's CPU. */
const STARTS_AT_ONCE = 4;

/**
 * Makes new VMs of one instant of a running one, which goes on.
 *
 * @throws WrennError capsule_ended, and of every kind that a start can end with; none of the children is left then
 */
export async function forkVm(
  context: VmContext,
  source: VmEntry,
  children: readonly ForkChild[],
  trace: Trace,
  signal: AbortSignal,
): Promise<VmEntry[]> {
  const { snapshots, registry, log } = context;
  const { id, shape } = source.record;
  await makeRoom(context.pool, shape.memoryMb * children.length);
  const host = hostCapacity();
  checkShape({ ...shape, memoryMb: shape.memoryMb * children.length }, { ...host, memoryMb: Number.MAX_SAFE_INTEGER });
  await stopCompaction(source);
  // The children map the memory and link the layers, so this folder may go when they run.
  const dir = await snapshots.makePartial(id, `fork-${randomBytes(6).toString('hex')}`);
  try {
    const instant = await instantOf(context, source, dir, trace, signal);
    const kernel = await requireKernel(context.dir);
    const started: VmEntry[] = [];
    try {
      await inBatches(children, async (child) => {
        // In the child's own order, so that who ends it meanwhile waits until it can be ended.
        const start = () => startChild(context, source, child, { source: instant, kernel }, signal);
        started.push(await context.queue.run(child.id, start));
      });
      return started;
    } catch (error) {
      await Promise.all(
        started.map((entry) => context.queue.run(entry.record.id, () => removeIfThere(registry, entry))),
      );
      throw error instanceof StartFailedError ? error.failure : error;
    }
  } catch (error) {
    throw asHostDiskFull(error) ?? error;
  } finally {
    await snapshots.removePartial(id, dir).catch((error: unknown) => {
      log.warn({ vm: id, err: error }, 'what forks were made of cannot be removed yet');
    });
  }
}

/** Stops the source for as long as it takes to write down what it is at that instant. */
async function instantOf(
  { registry, log }: VmContext,
  source: VmEntry,
  dir: string,
  trace: Trace,
  signal: AbortSignal,
): Promise<StartSource> {
  const { record } = source;
  const { vm } = liveVm(source);
  await atStandstill(source, false, { trace, log, signal }, async () => {
    const vmDir = registry.folder(source).dir;
    await takeSnapshot(vm, record, { dir, vmDir, disk: 'copy' }, trace, signal);
  });
  const { imageSha256, diskMb, layers, sharedLayers, defaults, shape } = record;
  const layerSums = sharedSums(record);
  const memory = { dir: snapshotFolder(dir).memory, shape, identity: vm.process.identity };
  const all = [...layers, nextLayer(layers)];
  const guestToken = record.accessToken;
  return { dir, memory, layers: all, sharedLayers, layerSums, guestToken, defaults, imageSha256, diskMb };
}

async function startChild(
  context: VmContext,
  { record }: VmEntry,
  { id, init }: ForkChild,
  start: { readonly source: StartSource; readonly kernel: Awaited<ReturnType<typeof requireKernel>> },
  signal: AbortSignal,
): Promise<VmEntry> {
  const { template, snapshotId, shape, requestedDiskMb, versions } = record;
  const child = newRecord({ id, template, snapshotId, shape, requestedDiskMb, source: start.source, init, versions });
  const entry: VmEntry = { record: child, ended: new AbortController() };
  await runVm(context, entry, { ...start, init }, new Trace(), signal);
  return entry;
}

async function removeIfThere(registry: VmContext['registry'], entry: VmEntry): Promise<void> {
  if (registry.get(entry.record.id) === entry) await registry.remove(entry);
}

/** Runs all, some at once; after a failure no further one is begun, and those that were are waited for. */
async function inBatches<T>(items: readonly T[], action: (item: T) => Promise<void>): Promise<void> {
  const waiting = [...items];
  let failure: { readonly error: unknown } | undefined;
  const worker = async () => {
    for (let item = waiting.shift(); item !== undefined && !failure; item = waiting.shift()) {
      await action(item).catch((error: unknown) => {
        failure ??= { error };
      });
    }
  };
  await Promise.all(Array.from({ length: STARTS_AT_ONCE }, worker));
  if (failure) throw failure.error;
}

/** @throws WrennError invalid_request where the list cannot be meant */
export function checkChildren(sourceId: string, children: readonly ForkChild[]): void {
  const ids = new Set(children.map(({ id }) => id));
  if (children.length === 0 || ids.size !== children.length || ids.has(sourceId)) {
    throw new WrennError('invalid_request', { problem: 'each child of a fork needs an id of its own.' });
  }
}
