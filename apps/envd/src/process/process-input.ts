import type { Socket } from 'node:net';
import { WrennError } from '@wrenn/protocol/errors';

/** Bytes that may wait for a process that does not read. */
const QUEUE_BYTES = 16 * 1024 * 1024;

/** What a process reads: the write end of its stdin, or its terminal. */
export class ProcessInput {
  readonly kind: 'stdin' | 'pty';
  readonly #socket: Socket;
  #pid = 0;
  #queuedBytes = 0;
  #closed = false;

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
