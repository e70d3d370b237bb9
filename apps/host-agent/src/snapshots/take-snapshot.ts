import { chown, mkdir } from 'node:fs/promises';
import type { RunningVm } from '@wrenn/hypervisor/hypervisor';
import { copyDisk, freezeDisk, nextLayer } from '../disk/disk-chain.ts';
import { checkFreeSpace } from '../disk/overlay.ts';
import type { VmRecord } from '../journal/vm-record.ts';
import type { Trace } from '../vms/trace.ts';
import { snapshotFolder } from './sealed-folder.ts';
import { MANIFEST_VERSION, type SnapshotManifest } from './snapshot-manifest.ts';

const MIB = 1024 * 1024;

export interface SnapshotTarget {
  /** Empty folder that is filled. */
  readonly dir: string;
  /** Folder of the VM. */
  readonly vmDir: string;
  /** `freeze`: the VM is ended afterwards, so its disk is taken as it is. `copy`: it goes on. */
  readonly disk: 'freeze' | 'copy';
}

/** Writes memory, devices and disk of a VM that stands still into a folder. Nothing is on stable storage yet. */
export async function takeSnapshot(
  vm: RunningVm,
  record: VmRecord,
  { dir, vmDir, disk }: SnapshotTarget,
  trace: Trace,
  signal: AbortSignal,
): Promise<void> {
  const { memory } = snapshotFolder(dir);
  // Most of the memory is what it was started from; the copy of that shares blocks only where the file system can.
  await checkFreeSpace(dir, (record.shape.memoryMb * MIB) / 4);
  await mkdir(memory, { mode: 0o700 });
  await trace.step('memory', () => vm.saveSnapshot(memory, signal));
  await chown(memory, 0, 0);
  await trace.step('disk', () => {
    if (disk === 'freeze') return freezeDisk(vmDir, dir, record.layers);
    return copyDisk(vmDir, dir, record.layers, signal);
  });
}

/** What the manifest of such a snapshot says, beside its files. */
export function manifestOf(
  record: VmRecord,
  vm: RunningVm,
  own: Pick<SnapshotManifest, 'kind' | 'id' | 'generation'>,
): Omit<SnapshotManifest, 'files'> {
  const { template, imageSha256, snapshotId, shape, diskMb, requestedDiskMb, layers, sharedLayers, defaults } = record;
  return {
    version: MANIFEST_VERSION,
    ...own,
    hypervisor: vm.process.identity,
    template,
    imageSha256,
    ...(snapshotId ? { snapshotId } : {}),
    shape,
    diskMb,
    requestedDiskMb,
    layers: [...layers, nextLayer(layers)],
    sharedLayers,
    guestToken: record.accessToken,
    defaults,
    versions: record.versions,
    createdAt: new Date().toISOString(),
    capsuleCreatedAt: record.createdAt,
  };
}

/** What is known of the files that a snapshot of this VM shares with those before it. */
export function sharedSums({ layers, layerSums }: VmRecord): VmRecord['layerSums'] {
  // Merged layers are forgotten: the next one on top of those that stay has a name that was used before.
  const shared = new Set(['blank.qcow2', ...layers.map((name) => `layers/${name}`)]);
  return Object.fromEntries(Object.entries(layerSums).filter(([name]) => shared.has(name)));
}
