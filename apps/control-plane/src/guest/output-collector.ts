import { isUtf8 } from 'node:buffer';

const BLOCK_BYTES = 256 * 1024;

/**
 * Keeps the first bytes of a stream, up to a limit, and counts the rest. Bytes are copied into blocks of its own:
 * received chunks are views of larger buffers, which would all be kept alive.
 */
export class OutputCollector {
  readonly #limit: number;
  readonly #blocks: Buffer[] = [];
  #used = 0;
  #length = 0;
  truncatedBytes = 0;

  constructor(limitBytes: number) {
    this.#limit = limitBytes;
  }

  push(bytes: Uint8Array): void {
    const kept = bytes.subarray(0, this.#limit - this.#length);
    this.truncatedBytes += bytes.length - kept.length;
    this.#length += kept.length;
    for (let at = 0; at < kept.length; ) {
      let block = this.#blocks.at(-1);
      if (!block || this.#used === block.length) {
        block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
        this.#blocks.push(block);
        this.#used = 0;
      }
      const part = kept.subarray(at, at + block.length - this.#used);
      block.set(part, this.#used);
      this.#used += part.length;
      at += part.length;
    }
  }

  /** What was kept, in blocks whose borders may lie inside a character. */
  *blocks(): Generator<Buffer> {
    for (const [index, block] of this.#blocks.entries()) {
      yield index === this.#blocks.length - 1 ? block.subarray(0, this.#used) : block;
    }
  }

  /** Whether what was kept is valid UTF-8; a character that the limit cut in two does not count against it. */
  isText(): boolean {
    let rest: Buffer = Buffer.alloc(0);
    for (const block of this.blocks()) {
      const bytes = rest.length > 0 ? Buffer.concat([rest, block]) : block;
      const whole = wholeCharacters(bytes);
      if (!isUtf8(bytes.subarray(0, whole))) return false;
      rest = bytes.subarray(whole);
    }
    return rest.length === 0 || this.truncatedBytes > 0;
  }
}

/** Length of the part of the bytes that does not end within a UTF-8 character (RFC 3629, 3). */
export function wholeCharacters(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] ?? 0;
    if ((byte & 0b1100_0000) === 0b1000_0000) continue;
    return sequenceLength(byte) > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}

/** Bytes of the sequence that begins with this byte; 1 for one that begins none, because waiting for more is no use. */
function sequenceLength(lead: number): number {
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  return lead >= 0xf0 && lead <= 0xf4 ? 4 : 1;
}
