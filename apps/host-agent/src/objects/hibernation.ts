import { link, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { syncDirectory } from '@wrenn/config/atomic-file';
import { asHostDiskFull } from '../disk/disk-full.ts';
import { CHUNK_BYTES } from './chunk.ts';
import {
  decodeHibernationIndex,
  encodeIndex,
  type HibernationIndex,
  type IndexedFile,
  isFileName,
  isSum,
  type StoredFile,
} from './hibernation-index.ts';
import { checkKey, type ObjectStore, storeFailed } from './object-store.ts';
import { readObject } from './read-object.ts';
import { findShared, SHARED, storeShared } from './shared-file.ts';
import { readStoredFile, storeFile } from './stored-file.ts';
import { undoAndThrow } from './undo.ts';
import { writeStoredFile } from './write-stored-file.ts';

/** An index of a file of 1 TiB without a hole is smaller. */
const INDEX_LIMIT_BYTES = 256 * 1024 * 1024;

export interface HibernatedFile {
  /** Relative path inside the snapshot's folder. */
  readonly name: string;
  readonly path: string;
  /** The sum (snapshots/file-sum.ts) of a file that other snapshots share: base images, template layers. Stored once. */
  readonly sharedAs?: string;
}

export interface HibernationSource {
  /** Where in the store; belongs to this hibernation alone. */
  readonly key: string;
  /** Kept beside the files and given back by `wake`. */
  readonly manifest: Buffer;
  readonly files: readonly HibernatedFile[];
}

/**
 * Compresses and stores a snapshot, reads everything back and compares it. On return all of it is in the store and can
 * be read; otherwise nothing of it is, except shared files that were stored whole. A hibernation that was under the key
 * is replaced.
 *
 * @returns what the hibernation takes in the store, without shared files, in bytes.
 * @throws object_store_failed; snapshot_damaged where a shared file has another content than its sum says; what reading
 * the files throws; the signal's reason.
 */
export async function hibernate(
  store: ObjectStore,
  source: HibernationSource,
  signal: AbortSignal,
): Promise<{ storedBytes: number }> {
  const key = checkHibernationKey(source.key);
  for (const { name, sharedAs } of source.files) {
    if (!isFileName(name)) throw new TypeError(`"${name}" is not the name of a file in a snapshot`);
    if (sharedAs !== undefined && !isSum(sharedAs)) throw new TypeError(`"${sharedAs}" is not a SHA-256`);
  }
  // Where there is no index, there is no hibernation: an old one must not point to new files.
  await store.delete([indexOf(key)], signal);
  try {
    const files = new Map<HibernatedFile, IndexedFile>();
    let storedBytes = 0;
    // Shared files come last, because they stay in the store when a later step fails.
    for (const file of source.files.toSorted((a, b) => Number(!!a.sharedAs) - Number(!!b.sharedAs))) {
      const { name, path, sharedAs } = file;
      if (sharedAs !== undefined) {
        await storeShared(store, { sum: sharedAs, name, path, owner: key }, signal);
        files.set(file, { kind: 'shared', name, sharedAs });
        continue;
      }
      const object = `files/${files.size}`;
      const stored = await storeFile(store, `${key}/${object}`, path, signal);
      await readStoredFile(store, `${key}/${object}`, stored, signal, async () => {
        // Reading has compared the bytes with the sum of what was read from the disk.
      });
      files.set(file, { kind: 'own', name, object, stored });
      storedBytes += stored.storedBytes;
    }
    const inOrder = source.files.flatMap((file) => files.get(file) ?? []);
    const index = encodeIndex({ manifest: source.manifest.toString('base64'), files: inOrder });
    await store.put(indexOf(key), index, index.length, signal);
    const readBack = await readObject(store, indexOf(key), { start: 0, end: index.length }, signal);
    if (!readBack.equals(index)) throw storeFailed('it gave back other bytes than it was given');
    return { storedBytes: storedBytes + index.length };
  } catch (error) {
    return undoAndThrow(error, (undoSignal) => deleteHibernated(store, key, undoSignal));
  }
}

/** A file of this host with that sum, which is linked in place of reading it from the store; the caller checks it. */
export type FindLocal = (sharedAs: string) => string | undefined;

/**
 * Fills the empty folder `dir` with the files of a hibernation, holes kept, every chunk checked. On return all is on
 * stable storage. The caller removes the folder after a failure.
 *
 * @throws object_store_failed when there is no hibernation under the key, or the store fails or gives back other bytes;
 * host_disk_full; the signal's reason.
 */
export async function wake(
  store: ObjectStore,
  key: string,
  dir: string,
  signal: AbortSignal,
  findLocal: FindLocal = () => undefined,
): Promise<{ manifest: Buffer }> {
  const index = await readIndex(store, checkHibernationKey(key), signal);
  const folders = new Set([dir]);
  try {
    for (const file of index.files) {
      const path = join(dir, file.name);
      for (let folder = dirname(path); !folders.has(folder); folder = dirname(folder)) folders.add(folder);
      await mkdir(dirname(path), { recursive: true });
      const local = file.kind === 'shared' ? findLocal(file.sharedAs) : undefined;
      if (local && (await linkIfThere(local, path))) continue;
      const { objectKey, stored } = await find(store, key, file, signal);
      await writeStoredFile(store, objectKey, stored, path, signal);
    }
    for (const folder of folders) await syncDirectory(folder);
  } catch (error) {
    throw asHostDiskFull(error) ?? error;
  }
  return { manifest: Buffer.from(index.manifest, 'base64') };
}

/**
 * Bytes that it is going to take of a disk.
 *
 * @param isHere whether this host has a shared file already
 * @throws object_store_failed, or the signal's reason.
 */
export async function hibernatedBytes(
  store: ObjectStore,
  key: string,
  isHere: (sharedAs: string) => boolean,
  signal: AbortSignal,
): Promise<number> {
  const { files } = await readIndex(store, checkHibernationKey(key), signal);
  let chunks = 0;
  for (const file of files) {
    if (file.kind === 'shared' && isHere(file.sharedAs)) continue;
    chunks += (await find(store, key, file, signal)).stored.chunks.length;
  }
  return chunks * CHUNK_BYTES;
}

/**
 * Removes a hibernation; one that is not there is a success. Shared files stay, because other capsules, of other hosts
 * too, may need them.
 *
 * @throws object_store_failed, or the signal's reason.
 */
export async function deleteHibernated(store: ObjectStore, key: string, signal: AbortSignal): Promise<void> {
  // The index first: what is left of a deletion that was cut off is no hibernation.
  await store.delete([indexOf(checkHibernationKey(key))], signal);
  const keys: string[] = [];
  for await (const object of store.list(`${key}/`, signal)) keys.push(object);
  await store.delete(keys, signal);
}

function checkHibernationKey(key: string): string {
  if (checkKey(key) === SHARED || key.startsWith(`${SHARED}/`)) throw new TypeError(`${key} is for shared files`);
  return key;
}

function indexOf(key: string): string {
  return `${key}/index.json`;
}

async function readIndex(store: ObjectStore, key: string, signal: AbortSignal): Promise<HibernationIndex> {
  const found = await findHibernated(store, key, signal);
  if (!found) throw storeFailed('it does not have the state of this capsule');
  return found;
}

/** What is complete under a key; undefined where nothing is. @throws object_store_failed, also where its index is damaged */
export async function findHibernated(
  store: ObjectStore,
  key: string,
  signal: AbortSignal,
): Promise<HibernationIndex | undefined> {
  const found = await store.head(indexOf(key), signal);
  if (!found) return undefined;
  if (found.sizeBytes > INDEX_LIMIT_BYTES) throw storeFailed('it gave back something else than it was given');
  return decodeHibernationIndex(await readObject(store, indexOf(key), { start: 0, end: found.sizeBytes }, signal));
}

async function find(
  store: ObjectStore,
  key: string,
  file: IndexedFile,
  signal: AbortSignal,
): Promise<{ readonly objectKey: string; readonly stored: StoredFile }> {
  if (file.kind === 'own') return { objectKey: `${key}/${file.object}`, stored: file.stored };
  const shared = await findShared(store, file.sharedAs, signal);
  if (!shared) throw storeFailed('a file that this capsule shares with others is not there');
  return shared;
}

/** False where it is gone by now, or cannot be linked to. */
async function linkIfThere(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (['ENOENT', 'EXDEV'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  }
}
