import { createHash, hash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { dataExtents } from '@wrenn/guest-image/sparse-hash';

/** A part of a file that is not all zero. */
export interface SummedBlock {
  /** Its place in the file, counted in MiB. */
  readonly index: number;
  /** Hex SHA-256 of its bytes. */
  readonly sha256: string;
}

const BLOCK_BYTES = 1024 * 1024;
const WINDOW_BLOCKS = 4;
const SECTOR_BYTES = 512;
/** More than this takes longer to read, and fills the page cache with more zeroes, than asking where it is. */
const LARGE_HOLES_BYTES = 256 * BLOCK_BYTES;
const ZEROES = Buffer.alloc(BLOCK_BYTES);

/**
 * Sums up a file that may be mostly holes: the SHA-256 of the numbers and SHA-256 sums of those of its 1 MiB blocks
 * that are not all zero, and of its size. Hex.
 */
export async function sumFile(path: string, signal = new AbortController().signal): Promise<string> {
  await using file = await open(path, 'r');
  const { size, blocks: allocated } = await file.stat();
  const holes = size - allocated * SECTOR_BYTES;
  const extents = holes > LARGE_HOLES_BYTES ? await dataExtents(path, signal) : [{ start: 0, length: size }];
  const blocks: SummedBlock[] = [];
  const window = Buffer.allocUnsafe(WINDOW_BLOCKS * BLOCK_BYTES);
  let position = 0;
  for (const { start, length } of extents) {
    position = Math.max(position, start - (start % BLOCK_BYTES));
    const end = Math.min(size, Math.ceil((start + length) / BLOCK_BYTES) * BLOCK_BYTES);
    while (position < end) {
      signal.throwIfAborted();
      const part = window.subarray(0, Math.min(window.length, end - position));
      if ((await fill(file, part, position)) < part.length) throw new Error(`${path} became shorter while it was read`);
      for (let at = 0; at < part.length; at += BLOCK_BYTES) {
        const block = part.subarray(at, at + BLOCK_BYTES);
        if (block.equals(ZEROES.subarray(0, block.length))) continue;
        blocks.push({ index: (position + at) / BLOCK_BYTES, sha256: hash('sha256', block) });
      }
      position += part.length;
    }
  }
  return sumOfBlocks(size, blocks);
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
