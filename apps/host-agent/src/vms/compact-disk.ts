import { rm } from 'node:fs/promises';
import { diskFolder } from '../disk/disk-chain.ts';
import type { VmEntry } from './vm.ts';
import type { VmContext } from './vm-context.ts';

/** Layers of its own earlier generations that a VM may have before they are merged into its disk. */
const MAX_OWN_LAYERS = 4;
/** Shared layers that are not merged: the base, the template's, and what a snapshot of a snapshot adds. */
const MAX_SHARED_LAYERS = 6;
/** Base and template: where too many are shared, all but these are merged too. */
const ALWAYS_SHARED = 2;

/**
 * Merges the layers of a running VM's earlier generations into its own disk, in the background, where there are many:
 * however often a capsule sleeps, its chain stays short. Interrupted by whatever stops the VM, and begun again after
 * its next start.
 */
export function compactInBackground(context: VmContext, entry: VmEntry): void {
  const { record, process } = entry;
  const shared = record.sharedLayers <= MAX_SHARED_LAYERS ? record.sharedLayers : ALWAYS_SHARED;
  if (!process || entry.compaction || record.layers.length - shared <= MAX_OWN_LAYERS) return;
  const stop = new AbortController();
  const done = compact(context, entry, shared, stop.signal)
    .catch((error: unknown) => {
      if (stop.signal.aborted) return;
      context.log.warn({ vm: record.id, err: error }, 'the layers of a disk could not be merged');
    })
    .finally(() => {
      delete entry.compaction;
    });
  entry.compaction = { stop, done };
}

/** Ends a merging that is under way. The VM's record says afterwards which layers it needs. */
export async function stopCompaction(entry: VmEntry): Promise<void> {
  entry.compaction?.stop.abort(new Error('the VM is about to stop'));
  await entry.compaction?.done;
}

async function compact(
  { journal, registry, log }: VmContext,
  entry: VmEntry,
  keepLayers: number,
  signal: AbortSignal,
): Promise<void> {
  const { process, record } = entry;
  const started = performance.now();
  if ((await process?.compactDisk({ keepLayers }, signal)) !== 'merged') return;
  const merged = record.layers.slice(keepLayers);
  const kept = record.layers.slice(0, keepLayers);
  // First the record: a layer that it names must be there, one that it does not name may be.
  entry.record = { ...entry.record, layers: kept, sharedLayers: Math.min(entry.record.sharedLayers, keepLayers) };
  await journal.write(entry.record);
  const folder = diskFolder(registry.folder(entry).dir);
  await Promise.all(merged.map((name) => rm(folder.layer(name), { force: true })));
  const durationMs = Math.round(performance.now() - started);
  log.info({ vm: record.id, layers: merged.length, durationMs }, 'merged the layers of a disk');
}
