import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { nonZeroRuns } from '@wrenn/hypervisor/guest-memory';
import { CHUNK_BYTES, sumOf } from './chunk.ts';
import type { StoredChunk, StoredFile } from './hibernation-index.ts';
import type { ObjectStore } from './object-store.ts';
import { readStoredFile } from './stored-file.ts';

/**
 * Writes a stored file to `path`, holes kept, every chunk checked, and flushes it. What an earlier attempt left there is
 * gone on with: chunks that are in place, by their sums, are not read again.
 *
 * @throws object_store_failed, what writing throws, or the signal's reason; what is written by then stays.
 */
export async function writeStoredFile(
  store: ObjectStore,
  key: string,
  stored: StoredFile,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  await using file = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  const chunks = await missingChunks(file, stored, signal);
  await readStoredFile(store, key, { ...stored, chunks }, signal, async (plain, position) => {
    for (const run of nonZeroRuns(plain)) await writeAll(file, plain, run, position);
  });
  await file.sync();
}

/** Those that are not in the file as they should be. The file has the right length then, and zeroes in their place. */
async function missingChunks(file: FileHandle, stored: StoredFile, signal: AbortSignal): Promise<StoredChunk[]> {
  const { size } = await file.stat();
  if (size !== stored.sizeBytes) {
    await file.truncate(0);
    await file.truncate(stored.sizeBytes);
    return [...stored.chunks];
  }
  const missing: StoredChunk[] = [];
  for (const wanted of stored.chunks) {
    signal.throwIfAborted();
    const position = wanted.chunk * CHUNK_BYTES;
    const there = Buffer.alloc(Math.min(CHUNK_BYTES, stored.sizeBytes - position));
    await file.read(there, 0, there.length, position);
    if ((await sumOf(there)) === wanted.sha256) continue;
    // Only what is not zero is written over it.
    if (there.some((byte) => byte !== 0))
      await writeAll(file, Buffer.alloc(there.length), { offset: 0, length: there.length }, position);
    missing.push(wanted);
  }
  return missing;
}

async function writeAll(
  file: FileHandle,
  bytes: Buffer,
  { offset, length }: { readonly offset: number; readonly length: number },
  position: number,
): Promise<void> {
  for (let done = 0; done < length; ) {
    const { bytesWritten } = await file.write(bytes, offset + done, length - done, position + offset + done);
    done += bytesWritten;
  }
}
