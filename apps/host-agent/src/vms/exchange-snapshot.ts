import { stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { FetchedCopy } from '../objects/fetched-space.ts';
import { findHibernated, hibernate, hibernatedBytes } from '../objects/hibernation.ts';
import type { SleepingVm, SnapshotStore } from '../snapshots/snapshot-store.ts';
import { downloadGeneration } from './download-generation.ts';
import { requireSnapshot, SNAPSHOT_GENERATION } from './snapshot-vm.ts';
import type { VmContext } from './vm-context.ts';

/** Beside a snapshot: it came from another host. Its time is that of the last use. */
const MARKER = 'fetched';

/** What takes to give a snapshot to other hosts, and to take theirs. */
type ExchangeContext = Pick<VmContext, 'snapshots' | 'objects' | 'makeRoomForFetched'> & {
  readonly templates: Pick<VmContext['templates'], 'findFile'>;
};

/**
 * Puts a snapshot into the object store, where it is not yet.
 *
 * @returns where it is
 * @throws WrennError template_not_found, snapshot_damaged, object_store_failed
 */
export async function publishSnapshot(context: ExchangeContext, id: string, signal: AbortSignal): Promise<string> {
  const { snapshots, templates, objects } = context;
  const objectKey = `snapshots/${id}`;
  const kept = requireSnapshot(context, id);
  if (await findHibernated(objects, objectKey, signal)) return objectKey;
  const manifest = await snapshots.require(kept, false);
  const files = Object.entries(manifest.files).map(([name, { sha256 }]) => {
    // What a template has is there for all; what is the snapshot's alone goes with it.
    const isTemplates = templates.findFile(sha256) !== undefined;
    return { name, path: join(kept.dir, name), ...(isTemplates ? { sharedAs: sha256 } : {}) };
  });
  await hibernate(objects, { key: objectKey, manifest: Buffer.from(JSON.stringify(manifest)), files }, signal);
  return objectKey;
}

/**
 * The snapshot of another host, fetched unless it is here. One at a time for each snapshot.
 *
 * @throws WrennError snapshot_damaged, object_store_failed, host_disk_full; nothing of it is left then
 */
export async function fetchSnapshot(
  context: ExchangeContext,
  id: string,
  objectKey: string,
  signal: AbortSignal,
): Promise<SleepingVm> {
  const { snapshots, objects, templates, makeRoomForFetched } = context;
  const found = snapshots.latest(id);
  if (found) return found;
  const isHere = (sum: string) => templates.findFile(sum) !== undefined;
  await makeRoomForFetched(await hibernatedBytes(objects, objectKey, isHere, signal));
  const fetched = await downloadGeneration(context, { id, generation: SNAPSHOT_GENERATION, objectKey }, signal);
  await writeFile(join(fetched.dir, MARKER), '');
  return fetched;
}

/** VMs are made of it: of the fetched ones those go first that were not used for longest. */
export async function touchSnapshot({ dir }: SleepingVm): Promise<void> {
  const now = new Date();
  await utimes(join(dir, MARKER), now, now).catch(ignoreMissing);
}

/** The snapshots that were fetched. */
export async function fetchedSnapshots(snapshots: SnapshotStore): Promise<FetchedCopy[]> {
  const found: FetchedCopy[] = [];
  for (const { id, dir, manifest } of snapshots.kept()) {
    const marker = await stat(join(dir, MARKER)).catch(ignoreMissing);
    if (!marker || !manifest) continue;
    const files = await Promise.all(
      Object.keys(manifest.files).map((name) => stat(join(dir, name)).catch(ignoreMissing)),
    );
    const bytes = files.reduce((sum, file) => sum + (file?.blocks ?? 0) * 512, 0);
    found.push({ name: id, bytes, usedAtMs: marker.mtimeMs, remove: () => snapshots.remove(id) });
  }
  return found;
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}
