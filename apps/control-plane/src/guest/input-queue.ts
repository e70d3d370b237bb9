import { WrennError } from '@wrenn/protocol/errors';

/** One call carries at most this much. */
const BATCH_BYTES = 256 * 1024;
/** Above this much waiting input the client has to wait. */
const HIGH_WATER_BYTES = 4 * 1024 * 1024;

/** Where input goes. */
export interface InputTarget {
  /**
   * Resolves when the process has taken the bytes. Repeating it writes nothing twice.
   *
   * @param offset of the first byte in all input of this writer
   */
  send(bytes: Uint8Array, offset: number): Promise<void>;
  /** Closes stdin. */
  end(): Promise<void>;
  /** Told how many bytes of this writer's input have reached the process, in all. */
  onTaken?(bytes: number): void;
  /** Told once, when the queue gives up, and with how many bytes of which it is not known that they arrived. */
  onLost(error: unknown, bytes: number): void;
}

/**
 * Input to one process, in order: one call at a time, each carrying what came while the one before it was under way.
 * When the process does not read, whoever pushes waits. Input to a process that has ended goes nowhere, as it does on
 * any machine; any other that does not arrive is told of. After that nothing more is taken, because input with a hole
 * is not what anybody wrote.
 */
export class InputQueue {
  readonly #target: InputTarget;
  readonly #signal: AbortSignal;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #taken: number;
  #ending = false;
  #sending: Promise<void> | undefined;
  #isOver = false;

  /** @param offset bytes that this writer's input had before */
  constructor(target: InputTarget, offset: number, signal: AbortSignal) {
    this.#target = target;
    this.#taken = offset;
    this.#signal = signal;
  }

  /** Resolves when more may be pushed. */
  async push(bytes: Uint8Array): Promise<void> {
    if (this.#isOver) return;
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    const sending = this.#start();
    if (this.#waitingBytes > HIGH_WATER_BYTES) await sending;
  }

  /** Closes stdin after everything that was pushed. */
  end(): void {
    if (this.#isOver) return;
    this.#ending = true;
    void this.#start();
  }

  /** Resolves when everything that was pushed has arrived, or is given up. */
  async idle(): Promise<void> {
    await this.#sending;
  }

  #start(): Promise<void> {
    this.#sending ??= this.#send().finally(() => {
      this.#sending = undefined;
    });
    return this.#sending;
  }

  async #send(): Promise<void> {
    let batchBytes = 0;
    try {
      while (this.#waitingBytes > 0) {
        const batch = this.#takeBatch();
        batchBytes = batch.length;
        await this.#target.send(batch, this.#taken);
        this.#taken += batchBytes;
        batchBytes = 0;
        this.#target.onTaken?.(this.#taken);
      }
      if (!this.#ending) return;
      this.#ending = false;
      await this.#target.end();
    } catch (error) {
      this.#isOver = true;
      if (this.#signal.aborted) return;
      if (error instanceof WrennError && error.code === 'process_not_found') return;
      this.#target.onLost(error, batchBytes + this.#waitingBytes);
    }
  }

  #takeBatch(): Uint8Array {
    const all = this.#waiting.length === 1 ? this.#waiting[0] : Buffer.concat(this.#waiting);
    const batch = all?.subarray(0, BATCH_BYTES) ?? new Uint8Array();
    const rest = all?.subarray(BATCH_BYTES) ?? new Uint8Array();
    this.#waiting = rest.length > 0 ? [rest] : [];
    this.#waitingBytes = rest.length;
    return batch;
  }
}
