import { join } from 'node:path';
import type { HibernationSource } from '../objects/hibernation.ts';
import type { SnapshotManifest } from '../snapshots/snapshot-manifest.ts';

/** What of a generation goes into the object store: what it shares with others, once for all of them. */
export function hibernationSource(key: string, dir: string, manifest: SnapshotManifest): HibernationSource {
  const { files, layers, sharedLayers } = manifest;
  const shared = new Set(layers.slice(0, sharedLayers).map((name) => join('layers', name)));
  return {
    key,
    manifest: Buffer.from(JSON.stringify(manifest)),
    files: Object.entries(files).map(([name, { sha256 }]) => {
      return { name, path: join(dir, name), ...(shared.has(name) ? { sharedAs: sha256 } : {}) };
    }),
  };
}
