import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { WrennError } from '@wrenn/protocol/errors';
import { rejectOnAbort } from '../processes/reject-on-abort.ts';
import { sumOfBlocks } from '../snapshots/file-sum.ts';
import { KeyedQueue } from '../vms/keyed-queue.ts';
import { decodeSharedIndex, encodeIndex, type SharedIndex, type StoredFile } from './hibernation-index.ts';
import { type ObjectStore, storeFailed } from './object-store.ts';
import { readObject } from './read-object.ts';
import { readStoredFile, storeFile } from './stored-file.ts';
import { undoAndThrow } from './undo.ts';

/** Files that several hibernations share lie below this key, each under its sum. */
export const SHARED = 'shared';

const INDEX_LIMIT_BYTES = 64 * 1024 * 1024;

export interface SharedFile {
  /** What snapshots/file-sum.ts computes of the file. */
  readonly sum: string;
  /** For messages. */
  readonly name: string;
  readonly path: string;
  /** Key of the hibernation that stores it. */
  readonly owner: string;
}

/** One at a time stores a file; the others of this agent then find it. */
const queues = new WeakMap<ObjectStore, KeyedQueue>();

/**
 * Makes sure that a shared file is in the store. What is there already is believed when its index is whole and its
 * sizes are right; its content is checked when it is stored and when it is read.
 *
 * The object's name is that of the hibernation which stores it, and the index is written last. Of two agents that store
 * the same file at once, each writes an object of its own, and the index names one of them.
 *
 * @throws object_store_failed; snapshot_damaged when the file's content is not what the sum says; the signal's reason.
 */
export async function storeShared(store: ObjectStore, file: SharedFile, signal: AbortSignal): Promise<void> {
  const queue = queues.get(store) ?? new KeyedQueue();
  queues.set(store, queue);
  const begun = Promise.withResolvers<void>();
  const done = queue.run(file.sum, async () => {
    begun.resolve();
    signal.throwIfAborted();
    const { size } = await stat(file.path);
    if (!(await whereItIs(store, file.sum, size, signal))) await storeNew(store, file, size, signal);
  });
  done.catch(() => {
    // Whoever still waits hears of it below.
  });
  await rejectOnAbort(begun.promise, signal);
  await done;
}

/** @throws object_store_failed where its index is damaged. */
export async function findShared(
  store: ObjectStore,
  sum: string,
  signal: AbortSignal,
): Promise<{ readonly objectKey: string; readonly stored: StoredFile } | undefined> {
  const found = await store.head(indexOf(sum), signal);
  if (!found) return undefined;
  if (found.sizeBytes > INDEX_LIMIT_BYTES) throw storeFailed('it gave back something else than it was given');
  const { object, stored } = decodeSharedIndex(
    await readObject(store, indexOf(sum), { start: 0, end: found.sizeBytes }, signal),
  );
  return { objectKey: `${SHARED}/${sum}/${object}`, stored };
}

/** Where the file lies in the store; undefined where it is not, or not whole. */
async function whereItIs(
  store: ObjectStore,
  sum: string,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<string | undefined> {
  const found = await findShared(store, sum, signal).catch((error: unknown) => {
    // A damaged index is replaced by a good one; a store that fails will fail again at once.
    if (error instanceof WrennError && error.code === 'object_store_failed') return undefined;
    throw error;
  });
  if (found?.stored.sizeBytes !== sizeBytes) return undefined;
  const object = await store.head(found.objectKey, signal);
  return object?.sizeBytes === found.stored.storedBytes ? found.objectKey : undefined;
}

async function storeNew(store: ObjectStore, file: SharedFile, sizeBytes: number, signal: AbortSignal): Promise<void> {
  const object = createHash('sha256').update(file.owner).digest('hex').slice(0, 16);
  const objectKey = `${SHARED}/${file.sum}/${object}`;
  const stored = await storeChecked(store, objectKey, file, signal).catch((error: unknown) =>
    undoAndThrow(error, (undoSignal) => store.delete([objectKey], undoSignal)),
  );
  const there = await whereItIs(store, file.sum, sizeBytes, signal);
  // Another agent was quicker, and its object is as good.
  if (there !== undefined && there !== objectKey) return store.delete([objectKey], signal);
  // From here on the index may name the object, even when writing it fails.
  await putIndex(store, file.sum, { object, stored }, signal);
}

async function storeChecked(
  store: ObjectStore,
  objectKey: string,
  file: SharedFile,
  signal: AbortSignal,
): Promise<StoredFile> {
  const stored = await storeFile(store, objectKey, file.path, signal);
  const blocks = stored.chunks.map(({ chunk, sha256 }) => ({ index: chunk, sha256 }));
  if (sumOfBlocks(stored.sizeBytes, blocks) !== file.sum) {
    throw new WrennError('snapshot_damaged', { id: file.owner, problem: `${file.name} has another content` });
  }
  await readStoredFile(store, objectKey, stored, signal, async () => {
    // Reading has compared the bytes with the sum of what was read from the disk.
  });
  return stored;
}

async function putIndex(store: ObjectStore, sum: string, index: SharedIndex, signal: AbortSignal): Promise<void> {
  const bytes = encodeIndex(index);
  await store.put(indexOf(sum), bytes, bytes.length, signal);
}

function indexOf(sum: string): string {
  return `${SHARED}/${sum}/index.json`;
}
