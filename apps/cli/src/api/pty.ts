import { randomBytes } from 'node:crypto';
import { type PtyClientFrame, type PtyServerFrame, ptyServerFrameSchema } from '@wrenn/protocol/rest/pty';
import type { RawData } from 'ws';
import { CliError } from '../cli-error.ts';
import { ApiError } from './api-error.ts';
import type { ApiClient } from './client.ts';
import { capsulePath } from './http.ts';
import { PendingInput } from './pending-input.ts';
import { Reattach } from './reattach.ts';
import { type ApiSocket, openSocket } from './socket.ts';

/** A program to start in a new terminal. */
export interface PtyProgram {
  /** Undefined is the server's default shell. */
  readonly cmd?: string | undefined;
  readonly args?: readonly string[];
  readonly envs?: Readonly<Record<string, string>>;
  readonly cwd?: string | undefined;
  readonly user?: string | undefined;
}

export interface PtyOptions {
  /** What to start, or the tag of a terminal that is there. */
  readonly program: PtyProgram | { readonly tag: string };
  readonly cols: number;
  readonly rows: number;
  /** Takes output; false asks to wait until `resumeOutput` is called. */
  readonly onOutput: (data: Uint8Array) => boolean;
  /** Told what a person should know, such as that the connection was lost and is sought again. */
  readonly onNotice: (message: string) => void;
}

/**
 * A terminal in a capsule, over as many connections as it takes. Disposing closes the connection and leaves the program
 * to itself; `kill` ends it.
 */
export interface Pty extends Disposable {
  readonly tag: string;
  write(data: Uint8Array): void;
  resize(cols: number, rows: number): void;
  /** Resolves with whether it was told so; else the next connection tells it. */
  kill(): Promise<boolean>;
  resumeOutput(): void;
  /** Exit code of the program, 128 + the signal when one ended it. Rejects when the connection is lost for good. */
  readonly exited: Promise<number>;
}

/** Starts a program in a new terminal of the capsule, or attaches to a terminal. Resolves when it runs. */
export async function openPty(
  api: ApiClient,
  capsuleId: string,
  options: PtyOptions,
  signal: AbortSignal,
): Promise<Pty> {
  signal.throwIfAborted();
  const terminal = new Terminal(api, capsuleId, options);
  const closed = new AbortController();
  const aborted = Promise.withResolvers<never>();
  // It ends the wait and not the connection, over which the program may still be told to end.
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  const exited = Promise.race([terminal.run(closed.signal), aborted.promise]);
  exited.catch(() => undefined);
  const close = () => {
    signal.removeEventListener('abort', abort);
    closed.abort(new Error('the terminal was closed'));
  };
  try {
    await Promise.race([terminal.started, exited]);
  } catch (error) {
    close();
    throw error;
  }
  return {
    tag: terminal.tag,
    write: (data) => terminal.write(data),
    resize: (cols, rows) => terminal.resize(cols, rows),
    kill: () => terminal.kill(),
    resumeOutput: () => terminal.resumeOutput(),
    exited,
    [Symbol.dispose]: close,
  };
}

class Terminal {
  readonly tag: string;
  readonly started: Promise<void>;
  readonly #api: ApiClient;
  readonly #capsuleId: string;
  readonly #options: PtyOptions;
  readonly #input = new PendingInput();
  readonly #reattach: Reattach;
  #size: { cols: number; rows: number };
  #connection: ApiSocket | undefined;
  #isStarted = false;
  #isToEnd = false;
  /** Offset of the next byte of output. */
  #next = 0;
  #resolveStarted: () => void = () => undefined;

  constructor(api: ApiClient, capsuleId: string, options: PtyOptions) {
    const { program, cols, rows, onNotice } = options;
    // Named here and not by the server, so that it can be found also when the answer to the start is lost.
    this.tag = 'tag' in program ? program.tag : `pty-${randomBytes(8).toString('hex')}`;
    this.#api = api;
    this.#capsuleId = capsuleId;
    this.#options = options;
    this.#size = { cols, rows };
    this.started = new Promise((resolve) => {
      this.#resolveStarted = resolve;
    });
    this.#reattach = new Reattach({
      remedy: `The program goes on; \`wrenn attach ${capsuleId} ${this.tag}\` goes back to it.`,
      onLost: onNotice,
    });
  }

  /** Goes from connection to connection until the program has ended. */
  async run(signal: AbortSignal): Promise<number> {
    for (let round = 0; ; round++) {
      let isOpen = false;
      try {
        using connection = await openSocket(this.#api.connection, capsulePath(this.#capsuleId, '/pty'), signal);
        isOpen = true;
        return await this.#follow(connection, round);
      } catch (error) {
        // Nothing was begun, so there is nothing to go back to.
        if (round === 0 && !isOpen) throw error;
        await this.#reattach.lost(error, signal);
      }
    }
  }

  write(data: Uint8Array): void {
    this.#input.push(data);
    this.send(data);
  }

  resize(cols: number, rows: number): void {
    this.#size = { cols, rows };
    this.send({ type: 'resize', cols, rows });
  }

  async kill(): Promise<boolean> {
    this.#isToEnd = true;
    if (!this.#connection) return false;
    return this.#connection.send({ type: 'kill' }).then(
      () => true,
      () => false,
    );
  }

  resumeOutput(): void {
    this.#connection?.socket.resume();
  }

  /** What cannot be sent is sent again over the next connection, or is of no use any more. */
  send(frame: PtyClientFrame | Uint8Array): void {
    this.#connection?.send(frame).catch(() => undefined);
  }

  async #follow(connection: ApiSocket, round: number): Promise<number> {
    const exited = this.#receive(connection);
    // Where sending fails first, the reason is the same.
    exited.catch(() => undefined);
    this.#connection = connection;
    // All at once, so that nothing that is written meanwhile comes between or twice.
    const sent = connection.send(round === 0 ? this.#firstFrame() : this.#connectFrame('wait'));
    for (const chunk of this.#input.chunks) this.send(chunk);
    // It may have been said to a connection that was broken.
    if (this.#isToEnd) this.send({ type: 'kill' });
    await sent;
    return Promise.race([exited, connection.failed]);
  }

  #firstFrame(): PtyClientFrame {
    const { program } = this.#options;
    if ('tag' in program) return this.#connectFrame('wake');
    const { cmd, args = [], envs, cwd, user } = program;
    const command = { cmd, args: [...args], envs: { ...envs }, cwd, user, tag: this.tag };
    return { type: 'start', ...command, ...this.#size, binary: true, input_id: this.#input.id };
  }

  /** To come back wakes nothing: the capsule may sleep on as it did before the connection was lost. */
  #connectFrame(when_asleep: 'wake' | 'wait'): PtyClientFrame {
    const input = { input_id: this.#input.id, input_offset: this.#input.offset };
    return {
      type: 'connect',
      tag: this.tag,
      from_offset: this.#next,
      ...this.#size,
      binary: true,
      when_asleep,
      ...input,
    };
  }

  #receive(connection: ApiSocket): Promise<number> {
    const { socket } = connection;
    const { onOutput, onNotice } = this.#options;
    const output = (data: Uint8Array, offset = this.#next) => {
      this.#next = offset + data.length;
      if (!onOutput(data)) socket.pause();
    };
    return new Promise((resolve, reject) => {
      socket.on('message', (data, isBinary) => {
        // What a connection that was given up still brings, the next one brings again.
        if (this.#connection !== connection) return;
        if (isBinary) return output(bytesOf(data));
        const frame = parseFrame(String(data));
        switch (frame?.type) {
          case 'started':
            return this.#onStarted(frame.offset);
          case 'output':
            return output(Buffer.from(frame.data, 'base64'), frame.offset);
          case 'input_ack':
            return this.#input.acknowledge(frame.bytes);
          case 'exit':
            return resolve(frame.exit_code);
          case 'ping':
            return this.send({ type: 'pong' });
          case 'error':
            if (frame.fatal) return reject(new ApiError(frame.error));
            return onNotice(frame.data);
          case undefined:
            return reject(new CliError('The API sent a frame that this version of wrenn does not understand.'));
        }
      });
      socket.resume();
    });
  }

  #onStarted(offset: number): void {
    if (this.#isStarted && offset > this.#next) {
      this.#options.onNotice(`${offset - this.#next} bytes of output came meanwhile and are no longer kept.`);
    }
    this.#next = offset;
    this.#isStarted = true;
    this.#reattach.restored();
    this.#resolveStarted();
  }
}

function bytesOf(data: RawData): Uint8Array {
  if (Array.isArray(data)) return Buffer.concat(data);
  return data instanceof ArrayBuffer ? new Uint8Array(data) : data;
}

function parseFrame(text: string): PtyServerFrame | undefined {
  try {
    return ptyServerFrameSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
