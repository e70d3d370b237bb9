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

/** Where a shared file lies in the store. */
interface FoundFile {
  readonly objectKey: string;
  readonly stored: StoredFile;
}

/** @throws object_store_failed, also where its index is damaged. */
export async function findShared(store: ObjectStore, sum: string, signal: AbortSignal): Promise<FoundFile | undefined> {
  const index = await readIndex(store, sum, signal);
  return index && decoded(index, sum);
}

function decoded(index: Buffer, sum: string): FoundFile {
  const { object, stored } = decodeSharedIndex(index);
  return { objectKey: `${SHARED}/${sum}/${object}`, stored };
}

/** Where the file lies in the store; undefined where it is not, or not whole. */
async function whereItIs(
  store: ObjectStore,
  sum: string,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<string | undefined> {
  // A store that fails is not one that lacks the file: what is there may be needed, and must not be written over.
  const index = await readIndex(store, sum, signal);
  if (!index) return undefined;
  let found: FoundFile;
  try {
    found = decoded(index, sum);
  } catch {
    // A damaged index is replaced by a good one.
    return undefined;
  }
  if (found.stored.sizeBytes !== sizeBytes) return undefined;
  const object = await store.head(found.objectKey, signal);
  return object?.sizeBytes === found.stored.storedBytes ? found.objectKey : undefined;
}

async function readIndex(store: ObjectStore, sum: string, signal: AbortSignal): Promise<Buffer | undefined> {
  const found = await store.head(indexOf(sum), signal);
  if (!found) return undefined;
  if (found.sizeBytes > INDEX_LIMIT_BYTES) throw storeFailed('it gave back something else than it was given');
  return readObject(store, indexOf(sum), { start: 0, end: found.sizeBytes }, signal);
}

async function storeNew(store: ObjectStore, file: SharedFile, sizeBytes: number, signal: AbortSignal): Promise<void> {
  const object = createHash('sha256').update(file.owner).digest('hex').slice(0, 16);
  const objectKey = `${SHARED}/${file.sum}/${object}`;
  let stored: StoredFile;
  let there: string | undefined;
  try {
    stored = await storeChecked(store, objectKey, file, signal);
    there = await whereItIs(store, file.sum, sizeBytes, signal);
    signal.throwIfAborted();
  } catch (error) {
    return undoAndThrow(error, (undoSignal) => store.delete([objectKey], undoSignal));
  }
  // Another agent was quicker, and its object is as good.
  if (there !== undefined && there !== objectKey) return store.delete([objectKey], signal);
  // From here on the object stays: even where writing the index fails, it may be written, and others may rely on it.
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
