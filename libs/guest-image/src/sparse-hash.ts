import { createHash, type Hash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { z } from 'zod';
import { runCommand } from './command.ts';

const BUFFER_BYTES = 1024 * 1024;

/** A part of a file that is not a hole. Bytes. */
export interface Extent {
  readonly start: number;
  readonly length: number;
}

const imageMap = z.array(z.object({ start: z.int(), length: z.int(), data: z.boolean(), zero: z.boolean() }));

/** The parts of a file that hold data, in order; the file system tells them (SEEK_DATA) through qemu-img. */
export async function dataExtents(path: string, signal: AbortSignal): Promise<Extent[]> {
  const text = await runCommand('qemu-img', ['map', '--output=json', '--force-share', '--format=raw', path], {
    signal,
    timeoutMs: 60_000,
  });
  return imageMap.parse(JSON.parse(text.toString())).filter((extent) => extent.data && !extent.zero);
}

/**
 * Hex SHA-256 of a file's bytes, the same as `sha256sum` gives. Holes are not read: reading the empty part of a disk
 * image fills the page cache with zeros, which takes longer than all the rest.
 */
export async function hashSparseFile(path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  const zeros = Buffer.alloc(BUFFER_BYTES);
  const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  const extents = await dataExtents(path, signal);
  const file = await open(path);
  try {
    const size = (await file.stat()).size;
    let at = 0;
    for (const { start, length } of [...extents, { start: size, length: 0 }]) {
      while (at < start) at += addTo(hash, zeros, start - at);
      while (at < start + length) {
        signal.throwIfAborted();
        const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, start + length - at), at);
        if (bytesRead === 0) throw new Error(`${path} became shorter while it was read`);
        at += addTo(hash, buffer, bytesRead);
      }
    }
    return hash.digest('hex');
  } finally {
    await file.close();
  }
}

function addTo(hash: Hash, bytes: Buffer, atMost: number): number {
  const part = bytes.subarray(0, atMost);
  hash.update(part);
  return part.length;
}
