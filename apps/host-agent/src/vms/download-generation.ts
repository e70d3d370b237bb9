import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { asHostDiskFull } from '../disk/disk-full.ts';
import { wake } from '../objects/hibernation.ts';
import { damagedError, findDamage, sealFolder } from '../snapshots/sealed-folder.ts';
import { type SnapshotManifest, snapshotManifestSchema } from '../snapshots/snapshot-manifest.ts';
import type { SleepingVm } from '../snapshots/snapshot-store.ts';
import type { VmContext } from './vm-context.ts';

/** A state of a capsule, or a user's snapshot, in the object store. */
export interface StoredGeneration {
  /** Id of the capsule or of the snapshot. */
  readonly id: string;
  readonly generation: number;
  readonly objectKey: string;
}

type DownloadContext = Pick<VmContext, 'snapshots' | 'objects'> & {
  readonly templates: Pick<VmContext['templates'], 'findFile'>;
};

/** Brings a generation back from the object store; it counts as this host's only when every file is what it was. */
export async function downloadGeneration(
  { snapshots, objects, templates }: DownloadContext,
  { id, generation, objectKey }: StoredGeneration,
  signal: AbortSignal,
): Promise<SleepingVm> {
  const partial = await snapshots.makePartial(id, String(generation));
  try {
    const stored = await wake(objects, objectKey, partial, signal, (sum) => templates.findFile(sum));
    const manifest = snapshotManifestSchema.parse(JSON.parse(stored.manifest.toString()));
    if (manifest.id !== id || manifest.generation !== generation) {
      throw damagedError(id, new Error(`the object store has ${manifest.id} there`));
    }
    const known = await checkDownload(partial, manifest, signal);
    const { files: _, ...head } = manifest;
    await sealFolder({ partial, final: snapshots.folder(id, generation), manifest: head, known }, signal);
  } catch (error) {
    await snapshots.removePartial(id, partial);
    throw asHostDiskFull(error) ?? error;
  }
  return snapshots.add(id, generation);
}

async function checkDownload(
  dir: string,
  { id, files }: SnapshotManifest,
  signal: AbortSignal,
): Promise<SnapshotManifest['files']> {
  const found = await readdir(dir, { recursive: true });
  const missing = Object.keys(files).find((name) => !found.includes(name));
  if (missing) throw damagedError(id, new Error(`${missing} is missing in the object store`));
  const known: SnapshotManifest['files'] = {};
  for (const [name, sum] of Object.entries(files)) {
    const damage = await findDamage(dir, name, sum, signal);
    if (damage) throw damagedError(id, new Error(damage));
    known[name] = { ...sum, mtimeMs: (await stat(join(dir, name))).mtimeMs };
  }
  return known;
}
