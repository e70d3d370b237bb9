import { link, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { WrennError } from '@wrenn/protocol/errors';
import { asHostDiskFull } from '../disk/disk-full.ts';
import { sealFolder } from '../snapshots/sealed-folder.ts';
import type { SnapshotManifest } from '../snapshots/snapshot-manifest.ts';
import type { SleepingVm } from '../snapshots/snapshot-store.ts';
import { manifestOf, sharedSums, takeSnapshot } from '../snapshots/take-snapshot.ts';
import { stopCompaction } from './compact-disk.ts';
import { atStandstill, liveVm } from './stand-still.ts';
import type { Trace } from './trace.ts';
import type { VmEntry } from './vm.ts';
import type { VmContext } from './vm-context.ts';

/** A user's snapshot has one state only. */
export const SNAPSHOT_GENERATION = 1;

/**
 * Keeps the state of a running VM, which goes on, as a snapshot that VMs are made of.
 *
 * @throws WrennError host_disk_full, capsule_ended
 */
export async function snapshotRunningVm(
  context: VmContext,
  entry: VmEntry,
  snapshotId: string,
  trace: Trace,
  signal: AbortSignal,
): Promise<SleepingVm> {
  const { snapshots, registry, log } = context;
  const { vm } = liveVm(entry);
  await stopCompaction(entry);
  return sealed(context, snapshotId, async (dir, final) => {
    const { record } = entry;
    await atStandstill(entry, true, { trace, log, signal }, async () => {
      const vmDir = registry.folder(entry).dir;
      await takeSnapshot(vm, record, { dir, vmDir, disk: 'copy' }, trace, signal);
    });
    const head = manifestOf(record, vm, { kind: 'snapshot', id: snapshotId, generation: SNAPSHOT_GENERATION });
    // VMs of this snapshot share all that it has.
    const manifest = { ...head, sharedLayers: head.layers.length };
    await trace.step('seal', () => sealFolder({ partial: dir, final, manifest, known: sharedSums(record) }, signal));
    return snapshots.add(snapshotId, SNAPSHOT_GENERATION);
  });
}

/**
 * The same of a sleeping VM, whose files it shares.
 *
 * @throws WrennError snapshot_damaged, snapshot_incompatible, host_disk_full
 */
export async function snapshotSleepingVm(
  context: VmContext,
  sleeping: SleepingVm,
  snapshotId: string,
  trace: Trace,
  signal: AbortSignal,
): Promise<SleepingVm> {
  const { snapshots } = context;
  const parent = await snapshots.require(sleeping, true);
  return sealed(context, snapshotId, async (dir, final) => {
    await trace.step('link', () => linkFiles(sleeping.dir, dir, parent));
    const { files: known, capsuleCreatedAt: _, ...rest } = parent;
    const createdAt = new Date().toISOString();
    const own = { kind: 'snapshot', id: snapshotId, generation: SNAPSHOT_GENERATION, createdAt } as const;
    const manifest = { ...rest, ...own, sharedLayers: parent.layers.length };
    await trace.step('seal', () => sealFolder({ partial: dir, final, manifest, known }, signal));
    return snapshots.add(snapshotId, SNAPSHOT_GENERATION);
  });
}

/** @throws WrennError template_not_found */
export function requireSnapshot({ snapshots }: Pick<VmContext, 'snapshots'>, snapshotId: string): SleepingVm {
  const found = snapshots.latest(snapshotId);
  if (!found) throw new WrennError('template_not_found', { name: snapshotId });
  return found;
}

async function sealed(
  { snapshots }: VmContext,
  snapshotId: string,
  fill: (dir: string, final: string) => Promise<SleepingVm>,
): Promise<SleepingVm> {
  const partial = await snapshots.makePartial(snapshotId, String(SNAPSHOT_GENERATION));
  try {
    return await fill(partial, snapshots.folder(snapshotId, SNAPSHOT_GENERATION));
  } catch (error) {
    await snapshots.removePartial(snapshotId, partial);
    throw asHostDiskFull(error) ?? error;
  }
}

async function linkFiles(from: string, to: string, { files }: SnapshotManifest): Promise<void> {
  for (const name of Object.keys(files)) {
    await mkdir(dirname(join(to, name)), { recursive: true, mode: 0o700 });
    await link(join(from, name), join(to, name));
  }
}
