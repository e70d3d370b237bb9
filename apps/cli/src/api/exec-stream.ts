import { randomBytes } from 'node:crypto';
import type { Readable, Writable } from 'node:stream';
import {
  type ExecStreamClientFrame,
  type ProcessStreamServerFrame,
  processStreamServerFrameSchema,
} from '@wrenn/protocol/rest/process-stream';
import { CliError } from '../cli-error.ts';
import { ApiError } from './api-error.ts';
import type { ApiClient } from './client.ts';
import { endProcess } from './end-process.ts';
import { capsulePath } from './http.ts';
import { PendingInput } from './pending-input.ts';
import { Reattach } from './reattach.ts';
import { type ApiSocket, openSocket } from './socket.ts';

/** Where the streams of a process go. */
export interface ProcessStreams {
  /** Copied to its standard input until it ends. */
  readonly stdin?: Readable | undefined;
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** Called once, with what sends a signal to its whole process group. */
  readonly onStarted?: (sendSignal: (signal: number) => void) => void;
  /** Told what a person should know, such as that the connection was lost and is sought again. */
  readonly onNotice?: (message: string) => void;
}

/** A command in a capsule. Without `stdin` it reads an empty input. */
export interface ExecOptions extends ProcessStreams {
  readonly cmd: string;
  readonly args?: readonly string[];
  readonly envs?: Readonly<Record<string, string>>;
  readonly cwd?: string | undefined;
  readonly user?: string | undefined;
  /** Seconds until the command is killed; undefined is never. */
  readonly timeoutSec?: number | undefined;
}

export interface ExecExit {
  /** 128 + the signal when one ended the command. */
  readonly exitCode: number;
  readonly signal: number | null;
}

/**
 * Runs a command and copies its output as it comes, byte for byte and no faster than it is taken. A broken connection
 * is made again, and goes on where it was. When the signal aborts, the command is killed.
 */
export async function execStreaming(
  api: ApiClient,
  capsuleId: string,
  options: ExecOptions,
  signal: AbortSignal,
): Promise<ExecExit> {
  // Named here and not by the server, so that it can be found also when the answer to the start is lost.
  const tag = `exec-${randomBytes(8).toString('hex')}`;
  const { cmd, args = [], envs, cwd, user, timeoutSec, stdin } = options;
  const follower = new Follower(api, capsuleId, tag, options);
  const start: ExecStreamClientFrame = {
    type: 'start',
    ...{ cmd, args: [...args], envs: { ...envs }, cwd, user, tag },
    timeout_sec: timeoutSec,
    stdin: stdin !== undefined,
    encoding: 'base64',
    input_id: follower.input.id,
  };
  return follower.run({ start, endsWithUs: true }, signal);
}

/**
 * Copies the output of a process that runs or lately ended, from the oldest byte that is kept. When the signal aborts,
 * the process goes on.
 */
export function followProcess(
  api: ApiClient,
  capsuleId: string,
  selector: string,
  streams: ProcessStreams,
  signal: AbortSignal,
): Promise<ExecExit> {
  return new Follower(api, capsuleId, selector, streams).run({ start: undefined, endsWithUs: false }, signal);
}

interface Run {
  /** What starts the process; undefined when it runs already. */
  readonly start: ExecStreamClientFrame | undefined;
  /** Whether it is killed when the person wants to leave. */
  readonly endsWithUs: boolean;
}

class Follower {
  readonly input = new PendingInput();
  readonly #api: ApiClient;
  readonly #capsuleId: string;
  readonly #selector: string;
  readonly #streams: ProcessStreams;
  readonly #reattach: Reattach;
  readonly #notice: (message: string) => void;
  #connection: ApiSocket | undefined;
  #isStarted = false;
  /** Told to end, over a connection that stood. */
  #isStopped = false;
  /** Offset of the next byte of output. */
  #next = 0;
  #inputState: 'open' | 'ended' | 'refused' = 'open';

  constructor(api: ApiClient, capsuleId: string, selector: string, streams: ProcessStreams) {
    this.#api = api;
    this.#capsuleId = capsuleId;
    this.#selector = selector;
    this.#streams = streams;
    this.#notice = (message) => streams.onNotice?.(message);
    this.#reattach = new Reattach({
      remedy: `The command goes on; \`wrenn attach ${capsuleId} ${selector}\` shows its output.`,
      onLost: this.#notice,
    });
  }

  async run({ start, endsWithUs }: Run, signal: AbortSignal): Promise<ExecExit> {
    const { stdin } = this.#streams;
    const over = new AbortController();
    let isBegun = start === undefined;
    try {
      for (let round = 0; ; round++) {
        let isOpen = false;
        try {
          const path = round === 0 && start ? '/exec/stream' : this.#attachPath(round);
          using connection = await openSocket(this.#api.connection, capsulePath(this.#capsuleId, path), signal);
          isOpen = true;
          isBegun = true;
          return await this.#follow(connection, round === 0 ? start : undefined, over.signal, signal, endsWithUs);
        } catch (error) {
          // Nothing was begun, so there is nothing to go back to.
          if (round === 0 && !isOpen) throw error;
          await this.#reattach.lost(start ? this.#explain(error) : error, signal);
        }
      }
    } catch (error) {
      if (signal.aborted && endsWithUs && isBegun && !this.#isStopped) {
        await endProcess(this.#api, this.#capsuleId, this.#selector, this.#notice);
      }
      throw error;
    } finally {
      over.abort();
      stdin?.destroy();
    }
  }

  async #follow(
    connection: ApiSocket,
    start: ExecStreamClientFrame | undefined,
    over: AbortSignal,
    signal: AbortSignal,
    endsWithUs: boolean,
  ): Promise<ExecExit> {
    const ended = this.#receive(connection);
    // Where sending fails first, the reason is the same.
    ended.catch(() => undefined);
    const isFirst = this.#connection === undefined;
    this.#connection = connection;
    if (start) await connection.send(start);
    for (const chunk of this.input.chunks) this.#send(stdinFrame(chunk));
    if (this.#inputState === 'ended') this.#send({ type: 'stdin_end' });
    // It goes on from connection to connection; what cannot be sent now is sent over the next one.
    if (isFirst) void this.#pump(over);
    try {
      return await Promise.race([ended, connection.failed]);
    } catch (error) {
      if (signal.aborted && endsWithUs) {
        this.#isStopped = await connection.send({ type: 'stop' }).then(
          () => true,
          () => false,
        );
      }
      throw error;
    }
  }

  #attachPath(round: number): string {
    const query = new URLSearchParams({
      from_offset: String(this.#next),
      encoding: 'base64',
      // To come back wakes nothing: the capsule may sleep on as it did before the connection was lost.
      when_asleep: round === 0 ? 'wake' : 'wait',
      input_id: this.input.id,
      input_offset: String(this.input.offset),
    });
    return `/processes/${encodeURIComponent(this.#selector)}/stream?${query}`;
  }

  /** A command of which nothing is known after its start got lost has, as far as anybody can tell, not been started. */
  #explain(error: unknown): unknown {
    if (this.#isStarted || !(error instanceof ApiError) || error.reason !== 'process_not_found') return error;
    return new CliError(
      'The connection was lost before the command was started.',
      'Check that the platform runs (`wrenn doctor`) and try again.',
      { cause: error },
    );
  }

  /** What cannot be sent is sent again over the next connection, or is of no use any more. */
  #send(frame: ExecStreamClientFrame): void {
    this.#connection?.send(frame).catch(() => undefined);
  }

  /** Copies the input until it or the command ends. A command that reads no further is no error, as in a shell's pipe. */
  async #pump(over: AbortSignal): Promise<void> {
    const { stdin } = this.#streams;
    if (!stdin) return;
    try {
      for await (const chunk of stdin) {
        if (over.aborted || this.#inputState === 'refused') return;
        this.input.push(chunk);
        this.#send(stdinFrame(chunk));
        await this.input.room();
      }
    } catch (error) {
      if (over.aborted) return;
      this.#notice(`The input could not be read: ${error instanceof Error ? error.message : error}`);
    }
    this.#inputState = 'ended';
    this.#send({ type: 'stdin_end' });
  }

  #receive({ socket }: ApiSocket): Promise<ExecExit> {
    const { stdout, stderr, onStarted } = this.#streams;
    return new Promise((resolve, reject) => {
      const write = (target: Writable, frame: { data_b64?: string | undefined; offset: number }) => {
        const bytes = Buffer.from(frame.data_b64 ?? '', 'base64');
        if (frame.offset > this.#next) return reject(gap(this.#next, frame.offset));
        const fresh = bytes.subarray(this.#next - frame.offset);
        this.#next += fresh.length;
        if (fresh.length === 0 || target.write(fresh)) return;
        socket.pause();
        target.once('drain', () => socket.resume());
      };
      socket.on('message', (data) => {
        const frame = parseFrame(String(data));
        switch (frame?.type) {
          case 'start':
            this.#reattach.restored();
            if (!this.#isStarted) {
              this.#isStarted = true;
              this.#next = frame.offset;
              onStarted?.((number) => this.#send({ type: 'signal', signal: number }));
            } else if (frame.offset > this.#next) {
              reject(gap(this.#next, frame.offset));
            }
            return;
          case 'stdout':
            return write(stdout, frame);
          case 'stderr':
            return write(stderr, frame);
          case 'stdin_ack':
            return this.input.acknowledge(frame.bytes);
          case 'exit':
            return resolve({ exitCode: frame.exit_code, signal: frame.signal });
          case 'error':
            if (frame.fatal) return reject(new ApiError(frame.error));
            if (frame.error.reason === 'process_input_closed') this.#inputState = 'refused';
            else this.#notice(frame.data);
            return;
          case undefined:
            return reject(new CliError('The API sent a frame that this version of wrenn does not understand.'));
        }
      });
      socket.resume();
    });
  }
}

function gap(from: number, to: number): CliError {
  return new CliError(
    `${to - from} bytes of output came while the connection was lost and are no longer kept.`,
    'Write large output to a file in the capsule.',
  );
}

function stdinFrame(bytes: Uint8Array): ExecStreamClientFrame {
  const { buffer, byteOffset, length } = bytes;
  return { type: 'stdin', data_b64: Buffer.from(buffer, byteOffset, length).toString('base64') };
}

function parseFrame(text: string): ProcessStreamServerFrame | undefined {
  try {
    return processStreamServerFrameSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
