import { promisify } from 'node:util';
import { constants, type ZstdOptions, zstdCompress, zstdDecompress } from 'node:zlib';
import { storeFailed } from './object-store.ts';

/** Files are stored in pieces of this size, each readable by itself. Part of the format. */
export const CHUNK_BYTES = 1024 * 1024;

/**
 * Level 3 would save a tenth more and take more than half as long again. Large output buffers save most of the way to the
 * thread pool and back, which zlib goes for each.
 */
const PACKING: ZstdOptions = { params: { [constants.ZSTD_c_compressionLevel]: 1 }, chunkSize: CHUNK_BYTES / 4 };
const UNPACKING: ZstdOptions = { chunkSize: CHUNK_BYTES };
const ZEROS = Buffer.alloc(CHUNK_BYTES);

const compress = promisify<Uint8Array, ZstdOptions, Buffer<ArrayBuffer>>(zstdCompress);
const decompress = promisify<Uint8Array, ZstdOptions, Buffer<ArrayBuffer>>(zstdDecompress);

/** A chunk as it lies in the store: a chunk of its full length is stored as it is, a shorter one is a frame of zstd. */
export interface PackedChunk {
  readonly bytes: Buffer<ArrayBuffer>;
  /** Of the plain bytes, hex. */
  readonly sha256: string;
}

/** Undefined for a chunk of zeroes, which needs no room. */
export async function packChunk(plain: Buffer<ArrayBuffer>): Promise<PackedChunk | undefined> {
  if (ZEROS.subarray(0, plain.length).equals(plain)) return undefined;
  const [sha256, packed] = await Promise.all([sumOf(plain), compress(plain, PACKING)]);
  return { bytes: packed.length < plain.length ? packed : plain, sha256 };
}

/** @throws object_store_failed unless the result has just this length and sum. */
export async function unpackChunk(
  stored: Buffer<ArrayBuffer>,
  expected: { readonly plainBytes: number; readonly sha256: string },
): Promise<Buffer<ArrayBuffer>> {
  const plain = stored.length === expected.plainBytes ? stored : await decompressed(stored, expected.plainBytes);
  if (plain.length !== expected.plainBytes || (await sumOf(plain)) !== expected.sha256) {
    throw storeFailed('it gave back other bytes than it was given');
  }
  return plain;
}

/** Counted in the thread pool: hashing on the main thread would hold up the agent's other work. */
export async function sumOf(bytes: Buffer<ArrayBuffer>): Promise<string> {
  return Buffer.from(await crypto.subtle.digest('SHA-256', bytes)).toString('hex');
}

async function decompressed(stored: Uint8Array, plainBytes: number): Promise<Buffer<ArrayBuffer>> {
  try {
    return await decompress(stored, { ...UNPACKING, maxOutputLength: plainBytes });
  } catch (error) {
    throw storeFailed('it gave back other bytes than it was given', error);
  }
}
