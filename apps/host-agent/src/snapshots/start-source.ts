import type { MemorySnapshot } from '@wrenn/hypervisor/hypervisor';
import type { GuestDefaults } from '../journal/vm-record.ts';
import { snapshotFolder } from './sealed-folder.ts';
import type { SnapshotManifest } from './snapshot-manifest.ts';

/** What a VM can be started from: the memory of one instant, and the disk as that memory knows it. */
export interface StartSource {
  /** Folder of the snapshot, as disk/disk-chain.ts and sealed-folder.ts name what is in it. */
  readonly dir: string;
  /** Undefined: the disk is booted. */
  readonly memory: MemorySnapshot | undefined;
  /** From the base up. */
  readonly layers: readonly string[];
  readonly sharedLayers: number;
  /** Sums of layers and blank overlay, as far as they are known, by path inside the folder. */
  readonly layerSums: SnapshotManifest['files'];
  /** What the guest agent in the memory demands; empty: nothing yet. */
  readonly guestToken: string;
  readonly defaults: GuestDefaults;
  readonly imageSha256: string;
  readonly diskMb: number;
}

export function startSource(dir: string, manifest: SnapshotManifest): StartSource {
  const { shape, hypervisor, layers, sharedLayers, guestToken, defaults, imageSha256, diskMb } = manifest;
  const memory = { dir: snapshotFolder(dir).memory, shape, identity: hypervisor };
  const diskSums = Object.entries(manifest.files).filter(([name]) => !name.startsWith('memory/'));
  const layerSums = Object.fromEntries(diskSums);
  return { dir, memory, layers, sharedLayers, layerSums, guestToken, defaults, imageSha256, diskMb };
}

/** The same disk without the memory. */
export function withoutMemory(source: StartSource): StartSource {
  return { ...source, memory: undefined, guestToken: '' };
}
