import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { chunkEnd, type OutputChunk, type OutputStream } from './output-chunk.ts';

const STREAMS: readonly OutputStream[] = ['stdout', 'stderr', 'pty'];
/** A frame is the stream's number (1 byte), the length (4 bytes) and the bytes. */
const HEADER_BYTES = 5;
const INDEX_EVERY_BYTES = 64 * 1024;
const READ_BYTES = 256 * 1024;

/** How much output of all processes together may lie on the disk. */
export class SpillBudget {
  readonly #limitBytes: number;
  #usedBytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  reserve(bytes: number): boolean {
    if (this.#usedBytes + bytes > this.#limitBytes) return false;
    this.#usedBytes += bytes;
    return true;
  }

  release(bytes: number): void {
    this.#usedBytes -= bytes;
  }
}

/**
 * One file of output that has left memory. It has no name, so nothing stays behind however this process ends. Writes
 * are synchronous: they go to the page cache, and the order of output must not depend on them.
 */
export class SpillFile {
  readonly start: number;
  #end: number;
  #bytes = 0;
  readonly #fd: number;
  /** Where to start reading for an offset: one entry about every INDEX_EVERY_BYTES. */
  readonly #index: { offset: number; position: number }[] = [];

  constructor(directory: string, start: number) {
    const path = join(directory, `.wrenn-output-${randomBytes(8).toString('hex')}`);
    this.#fd = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    this.start = start;
    this.#end = start;
  }

  /** Offset after the last byte. */
  get end(): number {
    return this.#end;
  }

  /** Size of the file. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Appends chunks that follow each other. Throws when the disk is full; the file then is as it was. */
  append(chunks: readonly OutputChunk[]): void {
    const parts: Buffer[] = [];
    let position = this.#bytes;
    const entries: { offset: number; position: number }[] = [];
    for (const chunk of chunks) {
      const lastIndexed = entries.at(-1) ?? this.#index.at(-1);
      if (lastIndexed === undefined || position - lastIndexed.position >= INDEX_EVERY_BYTES) {
        entries.push({ offset: chunk.offset, position });
      }
      const header = Buffer.allocUnsafe(HEADER_BYTES);
      header.writeUInt8(STREAMS.indexOf(chunk.stream), 0);
      header.writeUInt32LE(chunk.data.length, 1);
      parts.push(header, chunk.data);
      position += HEADER_BYTES + chunk.data.length;
    }
    const block = Buffer.concat(parts);
    for (let written = 0; written < block.length; ) {
      written += writeSync(this.#fd, block, written, block.length - written, this.#bytes + written);
    }
    this.#bytes = position;
    this.#index.push(...entries);
    const last = chunks.at(-1);
    if (last !== undefined) this.#end = chunkEnd(last);
  }

  /** Some chunks from the one that holds `offset` on; at least one, unless the offset is the end. */
  read(offset: number): OutputChunk[] {
    if (offset >= this.#end) return [];
    const entry = this.#index.findLast((candidate) => candidate.offset <= offset) ?? {
      offset: this.start,
      position: 0,
    };
    const chunks: OutputChunk[] = [];
    let position = entry.position;
    let chunkOffset = entry.offset;
    let block = this.#readBlock(position, READ_BYTES);
    let inBlock = 0;
    for (;;) {
      const header = block.subarray(inBlock, inBlock + HEADER_BYTES);
      if (header.length < HEADER_BYTES) break;
      const length = header.readUInt32LE(1);
      if (inBlock + HEADER_BYTES + length > block.length) {
        if (chunks.length > 0) break;
        position += inBlock;
        inBlock = 0;
        const next = this.#readBlock(position, Math.max(READ_BYTES, HEADER_BYTES + length));
        if (next.length < HEADER_BYTES + length)
          throw new Error('A file of kept output is shorter than its frames say.');
        block = next;
        continue;
      }
      const stream = STREAMS[header.readUInt8(0)];
      if (stream === undefined) throw new Error('A file of kept output holds a frame of an unknown stream.');
      if (chunkOffset + length > offset) {
        const start = inBlock + HEADER_BYTES;
        chunks.push({ stream, offset: chunkOffset, data: block.subarray(start, start + length) });
      }
      chunkOffset += length;
      inBlock += HEADER_BYTES + length;
    }
    return chunks;
  }

  #readBlock(position: number, bytes: number): Buffer {
    const size = Math.min(bytes, this.#bytes - position);
    const block = Buffer.allocUnsafe(size);
    let filled = 0;
    while (filled < size) {
      const read = readSync(this.#fd, block, filled, size - filled, position + filled);
      if (read === 0) break;
      filled += read;
    }
    return block.subarray(0, filled);
  }

  close(): void {
    closeSync(this.#fd);
  }
}
