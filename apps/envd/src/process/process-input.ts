import type { Socket } from 'node:net';
import { WrennError } from '@wrenn/protocol/errors';

/** Bytes that may wait for a process that does not read. */
const QUEUE_BYTES = 16 * 1024 * 1024;
/** Writers whose place in their input is remembered. */
const MAX_WRITERS = 256;

/** Where one writer is in its input. */
interface Writer {
  readonly takenBytes: number;
  /** Settles when the last of them have been written. */
  readonly written: Promise<void>;
}

/** What a process reads: the write end of its stdin, or its terminal. */
export class ProcessInput {
  readonly kind: 'stdin' | 'pty';
  readonly #socket: Socket;
  #pid = 0;
  #queuedBytes = 0;
  #closed = false;
  /** Those that wrote last are at the end. */
  readonly #writers = new Map<string, Writer>();

  constructor(kind: 'stdin' | 'pty', socket: Socket) {
    this.kind = kind;
    this.#socket = socket;
    // A process that closes its stdin breaks the pipe; each write that is under way learns it by its callback.
    socket.on('error', () => {
      this.#closed = true;
    });
  }

  setPid(pid: number): void {
    this.#pid = pid;
  }

  /** Resolves when the kernel has taken every byte, which for a process that does not read is not before it does. */
  async write(data: Uint8Array): Promise<void> {
    if (this.#closed) throw this.#refused('it has closed its input');
    if (this.#queuedBytes + data.length > QUEUE_BYTES) {
      throw new WrennError('guest_limit_reached', {
        problem: `process ${this.#pid} does not read, and ${this.#queuedBytes} bytes wait for it`,
      });
    }
    this.#queuedBytes += data.length;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#socket.write(data, (error) => (error ? reject(error) : resolve()));
      });
    } catch (error) {
      throw this.#refused('it has closed its input or ended', error);
    } finally {
      this.#queuedBytes -= data.length;
    }
  }

  /**
   * Writes what of a writer's input was not taken before, so that a writer that lost the answer may repeat its call.
   * Bytes count as taken as soon as they wait here: whatever becomes of the call, they reach the process in order.
   *
   * @param offset of the first byte of `data` in the writer's input
   */
  async writeOnce(writer: string, offset: number, data: Uint8Array): Promise<void> {
    const known = this.#writers.get(writer) ?? { takenBytes: 0, written: Promise.resolve() };
    if (offset > known.takenBytes) {
      const problem = `this input begins at byte ${offset} of its writer, of whom ${known.takenBytes} bytes came before`;
      throw new WrennError('invalid_request', { problem });
    }
    const fresh = data.subarray(known.takenBytes - offset);
    if (fresh.length === 0) return known.written;
    const queuedBytes = this.#queuedBytes;
    const written = this.write(fresh);
    if (this.#queuedBytes === queuedBytes) return written;
    this.#writers.delete(writer);
    this.#writers.set(writer, { takenBytes: known.takenBytes + fresh.length, written });
    const [oldest] = this.#writers.keys();
    if (this.#writers.size > MAX_WRITERS && oldest !== undefined) this.#writers.delete(oldest);
    return written;
  }

  /** Ends the input after all that was written. Ending it twice is no error. */
  end(): void {
    if (this.kind === 'pty') throw this.#refused('a terminal has no end of input; send Ctrl-D (byte 4) instead');
    this.#closed = true;
    this.#socket.end();
  }

  destroy(): void {
    this.#closed = true;
    this.#socket.destroy();
  }

  #refused(problem: string, cause?: unknown): WrennError {
    return new WrennError('process_input_closed', { pid: this.#pid, problem }, { cause });
  }
}
