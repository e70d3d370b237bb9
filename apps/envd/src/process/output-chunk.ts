export type OutputStream = 'stdout' | 'stderr' | 'pty';

/** A run of bytes of one stream. Offsets count the bytes of all streams together, in order of arrival. */
export interface OutputChunk {
  readonly stream: OutputStream;
  readonly offset: number;
  readonly data: Buffer;
}

export function chunkEnd(chunk: OutputChunk): number {
  return chunk.offset + chunk.data.length;
}

/** What is left of a chunk from an offset inside it on. */
export function chunkFrom(chunk: OutputChunk, offset: number): OutputChunk {
  if (offset <= chunk.offset) return chunk;
  return { stream: chunk.stream, offset, data: chunk.data.subarray(offset - chunk.offset) };
}
