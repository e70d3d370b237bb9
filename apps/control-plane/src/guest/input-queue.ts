import { WrennError } from '@wrenn/protocol/errors';
import type { Guest } from './guest.ts';
import { closeStdin, sendInput } from './processes.ts';

/** One call carries at most this much. */
const BATCH_BYTES = 256 * 1024;
/** Above this much waiting input the client has to wait. */
const HIGH_WATER_BYTES = 4 * 1024 * 1024;

/**
 * Input to one process, in order: one call at a time, each carrying what came while the one before it was under way.
 * Nothing is dropped; when the process does not read, whoever pushes waits. Input to a process that has ended goes
 * nowhere, as it does on any machine.
 */
export class InputQueue {
  readonly #guest: Guest;
  readonly #selector: string;
  readonly #kind: 'stdin' | 'pty';
  readonly #signal: AbortSignal;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #ending = false;
  #sending: Promise<void> | undefined;
  #failure: unknown;

  constructor(guest: Guest, selector: string, kind: 'stdin' | 'pty', signal: AbortSignal) {
    this.#guest = guest;
    this.#selector = selector;
    this.#kind = kind;
    this.#signal = signal;
  }

  /**
   * Resolves when more may be pushed.
   *
   * @throws what an earlier call to the guest threw
   */
  async push(bytes: Uint8Array): Promise<void> {
    if (this.#failure) throw this.#failure;
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    const sending = this.#start();
    if (this.#waitingBytes > HIGH_WATER_BYTES) await sending;
  }

  /** Closes stdin after everything that was pushed. */
  end(): void {
    this.#ending = true;
    void this.#start();
  }

  #start(): Promise<void> {
    this.#sending ??= this.#send()
      .catch((error: unknown) => {
        if (error instanceof WrennError && error.code === 'process_not_found') return;
        if (!this.#signal.aborted) this.#failure = error;
      })
      .finally(() => {
        this.#sending = undefined;
      });
    return this.#sending;
  }

  async #send(): Promise<void> {
    while (this.#waitingBytes > 0) {
      await sendInput(this.#guest, this.#selector, this.#kind, this.#takeBatch(), this.#signal);
    }
    if (!this.#ending) return;
    this.#ending = false;
    await closeStdin(this.#guest, this.#selector, this.#signal);
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
