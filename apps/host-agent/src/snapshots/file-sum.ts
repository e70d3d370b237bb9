import { createHash, hash } from 'node:crypto';
import { open } from 'node:fs/promises';

/** A part of a file that is not all zero. */
export interface SummedBlock {
  /** Its place in the file, counted in MiB. */
  readonly index: number;
  /** Hex SHA-256 of its bytes. */
  readonly sha256: string;
}

const BLOCK_BYTES = 1024 * 1024;
const WINDOW_BLOCKS = 4;
const ZEROES = Buffer.alloc(BLOCK_BYTES);

/**
 * Sums up a file that may be mostly holes: the SHA-256 of the numbers and SHA-256 sums of those of its 1 MiB blocks
 * that are not all zero, and of its size. Hex.
 */
export async function sumFile(path: string, signal?: AbortSignal): Promise<string> {
  await using file = await open(path, 'r');
  const blocks: SummedBlock[] = [];
  const window = Buffer.allocUnsafe(WINDOW_BLOCKS * BLOCK_BYTES);
  let position = 0;
  for (;;) {
    signal?.throwIfAborted();
    const length = await fill(file, window, position);
    for (let at = 0; at < length; at += BLOCK_BYTES) {
      const block = window.subarray(at, Math.min(at + BLOCK_BYTES, length));
      if (block.equals(ZEROES.subarray(0, block.length))) continue;
      blocks.push({ index: (position + at) / BLOCK_BYTES, sha256: hash('sha256', block) });
    }
    position += length;
    if (length < window.length) return sumOfBlocks(position, blocks);
  }
}

/** The sum of a file whose blocks are known, in their order. */
export function sumOfBlocks(sizeBytes: number, blocks: readonly SummedBlock[]): string {
  const lines = blocks.map(({ index, sha256 }) => `${index}:${sha256}\n`);
  return createHash('sha256').update(lines.join('')).update(String(sizeBytes)).digest('hex');
}

/** Reads until the buffer is full or the file ends, so that blocks always begin where they should. */
async function fill(file: Awaited<ReturnType<typeof open>>, target: Buffer, position: number): Promise<number> {
  let done = 0;
  while (done < target.length) {
    const { bytesRead } = await file.read(target, done, target.length - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}
