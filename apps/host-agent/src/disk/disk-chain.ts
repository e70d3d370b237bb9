import { copyFile, link, mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { copySparse } from '@wrenn/hypervisor/guest-memory';
import type { DiskLayer, VmSpec } from '@wrenn/hypervisor/hypervisor';

/**
 * Names inside a folder that holds a disk: a VM's or a snapshot's. Layers are named by their place from the base up,
 * `0.raw`, `1.qcow2` and so on, and are never written to. Each is a hard link, so a layer stays for as long as any
 * folder has it, whatever becomes of the others.
 */
export function diskFolder(dir: string) {
  return {
    layers: join(dir, 'layers'),
    layer: (name: string) => join(dir, 'layers', name),
    /** An empty overlay of the disk's size, which every VM's own disk begins as. */
    blank: join(dir, 'blank.qcow2'),
    /** What a VM writes to. */
    own: join(dir, 'disk.qcow2'),
  } as const;
}

/** Name of the layer that comes on top of these. */
export function nextLayer(layers: readonly string[]): string {
  return `${layers.length}.qcow2`;
}

/** A VM's disk with all that lies below it. */
export function diskOf(dir: string, layers: readonly string[]): VmSpec['disk'] {
  const folder = diskFolder(dir);
  const backing = layers.map((name): DiskLayer => {
    return { path: folder.layer(name), format: name.endsWith('.raw') ? 'raw' : 'qcow2' };
  });
  return { path: folder.own, format: 'qcow2', backing: backing.reverse() };
}

/** Gives `to` the same layers and blank overlay as `from` has. */
export async function linkLayers(from: string, to: string, layers: readonly string[]): Promise<void> {
  const [source, target] = [diskFolder(from), diskFolder(to)];
  await mkdir(target.layers, { mode: 0o700 });
  await Promise.all([
    ...layers.map((name) => linkFile(source.layer(name), target.layer(name))),
    linkFile(source.blank, target.blank),
  ]);
}

/** Gives a VM a disk of its own over the layers of a snapshot. */
export async function layDisk(snapshotDir: string, vmDir: string, layers: readonly string[]): Promise<void> {
  await linkLayers(snapshotDir, vmDir, layers);
  const { blank, own } = diskFolder(vmDir);
  await copyFile(blank, own);
}

/** Makes a VM's disk, which nobody writes to any more, the top layer of a snapshot without copying it. */
export async function freezeDisk(vmDir: string, snapshotDir: string, layers: readonly string[]): Promise<void> {
  await linkLayers(vmDir, snapshotDir, layers);
  await link(diskFolder(vmDir).own, diskFolder(snapshotDir).layer(nextLayer(layers)));
}

/** Makes a copy of a VM's disk, which stands still and will be written to again, the top layer of a snapshot. */
export async function copyDisk(
  vmDir: string,
  snapshotDir: string,
  layers: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  await linkLayers(vmDir, snapshotDir, layers);
  const to = diskFolder(snapshotDir).layer(nextLayer(layers));
  await copySparse(diskFolder(vmDir).own, to, signal);
}

/** Images may be on another file system than VMs; then nobody may remove them while they are used. */
export async function linkFile(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
    await symlink(from, to);
  }
}
