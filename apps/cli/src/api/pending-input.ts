import { randomUUID } from 'node:crypto';

/** Above this much that has not arrived the one who writes has to wait. */
const LIMIT_BYTES = 1024 * 1024;

/** Input of a process that the platform has not acknowledged: what is sent again over the next connection. */
export class PendingInput {
  /** Names this writer, so that what arrived twice is written once. */
  readonly id = randomUUID();
  readonly #chunks: Uint8Array[] = [];
  #offset = 0;
  #bytes = 0;
  #wake: (() => void) | undefined;

  /** Bytes that have arrived. */
  get offset(): number {
    return this.#offset;
  }

  get chunks(): readonly Uint8Array[] {
    return this.#chunks;
  }

  push(bytes: Uint8Array): void {
    this.#chunks.push(bytes);
    this.#bytes += bytes.length;
  }

  /** @param offset bytes that have arrived in all */
  acknowledge(offset: number): void {
    let arrived = offset - this.#offset;
    if (arrived <= 0) return;
    this.#offset = offset;
    this.#bytes -= arrived;
    for (let first = this.#chunks[0]; first && arrived > 0; first = this.#chunks[0]) {
      if (first.length > arrived) {
        this.#chunks[0] = first.subarray(arrived);
        break;
      }
      arrived -= first.length;
      this.#chunks.shift();
    }
    this.#wake?.();
  }

  /** Resolves when more may be pushed. */
  async room(): Promise<void> {
    while (this.#bytes > LIMIT_BYTES) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
