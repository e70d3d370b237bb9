import { type FileHandle, open } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { dataExtents } from '@wrenn/guest-image/sparse-hash';
import { CHUNK_BYTES, packChunk, unpackChunk } from './chunk.ts';
import type { StoredChunk, StoredFile } from './hibernation-index.ts';
import { mapAhead } from './map-ahead.ts';
import type { ObjectStore } from './object-store.ts';
import { readObject } from './read-object.ts';

const CHUNKS_AT_ONCE = 4;
const READS_AT_ONCE = 3;
/** Stored bytes of one read. */
const READ_BYTES = 4 * CHUNK_BYTES;
/** Below this, asking the file system for holes takes longer than reading them. */
const SMALL_FILE_BYTES = 4 * CHUNK_BYTES;

/**
 * Stores a file as one object of packed chunks. Holes are not read.
 *
 * @throws object_store_failed, what reading the file throws, or the signal's reason.
 */
export async function storeFile(
  store: ObjectStore,
  key: string,
  path: string,
  signal: AbortSignal,
): Promise<StoredFile> {
  await using file = await open(path);
  const { size: sizeBytes } = await file.stat();
  const chunks: StoredChunk[] = [];
  let storedBytes = 0;
  async function* stored(): AsyncGenerator<Uint8Array> {
    const wanted = await chunksWithData(path, sizeBytes, signal);
    for await (const { chunk, packed } of mapAhead(wanted, CHUNKS_AT_ONCE, async (index) => {
      signal.throwIfAborted();
      const bytes = await readChunk(file, index, sizeBytes);
      return { chunk: index, packed: await packChunk(bytes) };
    })) {
      if (!packed) continue;
      chunks.push({ chunk, offset: storedBytes, length: packed.bytes.length, sha256: packed.sha256 });
      storedBytes += packed.bytes.length;
      yield packed.bytes;
    }
  }
  const body = Readable.from(stored());
  try {
    await store.put(key, body, undefined, signal);
  } finally {
    body.destroy();
  }
  return { sizeBytes, storedBytes, chunks };
}

/**
 * Reads a stored file back, checks every chunk, and hands each to `take` with its place in the file, in bytes; several
 * at once, in no special order.
 *
 * @param file with those of its chunks that are wanted
 * @throws object_store_failed, what `take` throws, or the signal's reason.
 */
export async function readStoredFile(
  store: ObjectStore,
  key: string,
  file: StoredFile,
  signal: AbortSignal,
  take: (plain: Buffer, position: number) => Promise<void>,
): Promise<void> {
  const reads = mapAhead(neighbours(file.chunks), READS_AT_ONCE, async (group) => {
    const start = group[0]?.offset ?? 0;
    const end = start + group.reduce((bytes, { length }) => bytes + length, 0);
    const bytes = await readObject(store, key, { start, end }, signal);
    for (const { chunk, offset, length, sha256 } of group) {
      signal.throwIfAborted();
      const position = chunk * CHUNK_BYTES;
      const plainBytes = Math.min(CHUNK_BYTES, file.sizeBytes - position);
      await take(
        await unpackChunk(bytes.subarray(offset - start, offset - start + length), { plainBytes, sha256 }),
        position,
      );
    }
  });
  for await (const _ of reads) signal.throwIfAborted();
}

/** Groups chunks that follow one another in the object into reads. */
function* neighbours(chunks: readonly StoredChunk[]): Generator<StoredChunk[]> {
  let group: StoredChunk[] = [];
  let bytes = 0;
  for (const chunk of chunks) {
    const isNext = chunk.offset === (group[0]?.offset ?? 0) + bytes;
    if (group.length > 0 && (!isNext || bytes + chunk.length > READ_BYTES)) {
      yield group;
      group = [];
      bytes = 0;
    }
    group.push(chunk);
    bytes += chunk.length;
  }
  if (group.length > 0) yield group;
}

async function chunksWithData(path: string, sizeBytes: number, signal: AbortSignal): Promise<Iterable<number>> {
  const extents = sizeBytes > SMALL_FILE_BYTES ? await dataExtents(path, signal) : [{ start: 0, length: sizeBytes }];
  return (function* () {
    let next = 0;
    for (const { start, length } of extents) {
      const end = Math.ceil(Math.min(start + length, sizeBytes) / CHUNK_BYTES);
      for (next = Math.max(next, Math.floor(start / CHUNK_BYTES)); next < end; next++) yield next;
    }
  })();
}

async function readChunk(file: FileHandle, chunk: number, sizeBytes: number): Promise<Buffer<ArrayBuffer>> {
  const position = chunk * CHUNK_BYTES;
  const bytes = Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, sizeBytes - position));
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await file.read(bytes, done, bytes.length - done, position + done);
    if (bytesRead === 0) throw new Error('A file became shorter while it was stored');
    done += bytesRead;
  }
  return bytes;
}
