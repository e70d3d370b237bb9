import { join } from 'node:path';
import { type ImageManifest, imageManifest } from '@wrenn/guest-image/manifest';
import { WrennError } from '@wrenn/protocol/errors';
import { sumFile } from '../snapshots/file-sum.ts';
import { CHUNK_BYTES } from './chunk.ts';
import { findHibernated } from './hibernation.ts';
import { encodeIndex, type StoredFile } from './hibernation-index.ts';
import { type ObjectStore, storeFailed } from './object-store.ts';
import { findShared, storeShared } from './shared-file.ts';
import { writeStoredFile } from './write-stored-file.ts';

const ROOTFS = 'rootfs.ext4';

/** Where an image is in the store: named after its content, so that equal ones are there once. */
export function imageKey(sha256: string): string {
  return `images/${sha256}`;
}

/** The content that such a key names. @throws WrennError invalid_request for another key */
export function sha256In(key: string): string {
  const found = /^images\/([0-9a-f]{64})$/.exec(key)?.[1];
  if (found) return found;
  throw new WrennError('invalid_request', { problem: 'object_key must be that of a template.' });
}

/**
 * Makes sure that an image is in the store, in the form of a hibernation with one shared file: a capsule that sleeps
 * there and the image that it is of have that file in common.
 *
 * @param image.rootfsPath a file that never changes
 * @throws object_store_failed; snapshot_damaged when the file changed while it was stored; the signal's reason.
 */
export async function storeImage(
  store: ObjectStore,
  image: { readonly rootfsPath: string; readonly manifest: ImageManifest },
  signal: AbortSignal,
): Promise<void> {
  const { rootfsPath: path, manifest } = image;
  const key = imageKey(manifest.sha256);
  // An index that cannot be read is written anew; where it is the store that fails, the next step fails too.
  const known = sharedSumIn(await findHibernated(store, key, signal).catch(() => undefined));
  const sum = known ?? (await sumFile(path, signal));
  await storeShared(store, { sum, name: ROOTFS, path, owner: key }, signal);
  if (known !== undefined) return;
  // Of two agents that store it at once, both write the same.
  const index = encodeIndex({
    manifest: Buffer.from(JSON.stringify(manifest)).toString('base64'),
    files: [{ kind: 'shared', name: ROOTFS, sharedAs: sum }],
  });
  await store.put(`${key}/index.json`, index, index.length, signal);
}

/** An image in the store. */
export interface StoredImage {
  readonly manifest: ImageManifest;
  readonly objectKey: string;
  readonly stored: StoredFile;
  /** What it is going to take of a disk. */
  readonly dataBytes: number;
}

/** @throws object_store_failed, also where there is no such image */
export async function findStoredImage(store: ObjectStore, sha256: string, signal: AbortSignal): Promise<StoredImage> {
  const index = await findHibernated(store, imageKey(sha256), signal);
  const sum = sharedSumIn(index);
  if (!index || !sum) throw storeFailed('it does not have this template');
  const file = await findShared(store, sum, signal);
  if (!file) throw storeFailed('it does not have all of this template');
  const parsed = imageManifest.safeParse(JSON.parse(Buffer.from(index.manifest, 'base64').toString()));
  if (!parsed.success || parsed.data.sha256 !== sha256) throw storeFailed('it has something else in its place');
  return { ...file, manifest: parsed.data, dataBytes: file.stored.chunks.length * CHUNK_BYTES };
}

/**
 * Writes the image's file into a folder, which may hold a part of it from before.
 *
 * @throws object_store_failed, what writing throws, or the signal's reason.
 */
export async function fetchStoredImage(
  store: ObjectStore,
  { objectKey, stored }: StoredImage,
  dir: string,
  signal: AbortSignal,
): Promise<void> {
  await writeStoredFile(store, objectKey, stored, join(dir, ROOTFS), signal);
}

function sharedSumIn(index: Awaited<ReturnType<typeof findHibernated>>): string | undefined {
  const file = index?.files.find(({ name }) => name === ROOTFS);
  return file?.kind === 'shared' ? file.sharedAs : undefined;
}
