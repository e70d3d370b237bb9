import { isUtf8 } from 'node:buffer';
import { wholeCharacters } from './output-collector.ts';

/** Output as a text frame carries it. */
export interface TextChunk {
  readonly data: string;
  /** The same bytes in base64, when they are not valid UTF-8 and `data` shows replacement characters. */
  readonly data_b64?: string;
  readonly offset: number;
}

/** Cuts one stream of bytes into texts, holding back a character of which only a part has come. */
export class TextChunks {
  #held: Buffer = Buffer.alloc(0);
  #heldOffset = 0;

  /** @param offset of the first byte in the process's output */
  push(bytes: Uint8Array, offset: number): TextChunk | undefined {
    const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    const all = this.#held.length > 0 ? Buffer.concat([this.#held, chunk]) : chunk;
    const start = this.#held.length > 0 ? this.#heldOffset : offset;
    const whole = wholeCharacters(all);
    // A copy: the chunk is a view of a larger buffer.
    this.#held = Buffer.from(all.subarray(whole));
    this.#heldOffset = whole === 0 ? start : offset + bytes.length - this.#held.length;
    return whole === 0 ? undefined : toChunk(all.subarray(0, whole), start);
  }

  /** What is left when no more bytes come. */
  end(): TextChunk | undefined {
    const rest = this.#held;
    this.#held = Buffer.alloc(0);
    return rest.length === 0 ? undefined : toChunk(rest, this.#heldOffset);
  }
}

function toChunk(bytes: Buffer, offset: number): TextChunk {
  const data = bytes.toString();
  return isUtf8(bytes) ? { data, offset } : { data, data_b64: bytes.toString('base64'), offset };
}
