import { type PtyClientFrame, type PtyServerFrame, ptyServerFrameSchema } from '@wrenn/protocol/rest/pty';
import type { RawData } from 'ws';
import { CliError } from '../cli-error.ts';
import { ApiError } from './api-error.ts';
import type { ApiClient } from './client.ts';
import { openSocket } from './socket.ts';

export interface PtyOptions {
  /** Undefined is the server's default shell. */
  readonly cmd?: string | undefined;
  readonly args?: readonly string[];
  readonly envs?: Readonly<Record<string, string>>;
  readonly cwd?: string | undefined;
  readonly user?: string | undefined;
  readonly cols: number;
  readonly rows: number;
  /** Takes output; false asks to wait until `resumeOutput` is called. */
  readonly onOutput: (data: Uint8Array) => boolean;
}

/** A terminal in a capsule. Disposing closes the connection and leaves the program to itself; `kill` ends it. */
export interface Pty extends Disposable {
  write(data: Uint8Array): void;
  resize(cols: number, rows: number): void;
  kill(): void;
  resumeOutput(): void;
  /** Exit code of the program, 128 + the signal when one ended it. Rejects when the connection is lost. */
  readonly exited: Promise<number>;
}

/** Starts a program in a new terminal of the capsule. Resolves when it runs. */
export async function openPty(
  api: ApiClient,
  capsuleId: string,
  options: PtyOptions,
  signal: AbortSignal,
): Promise<Pty> {
  const connection = await openSocket(api.connection, `/v1/capsules/${encodeURIComponent(capsuleId)}/pty`, signal);
  const started = Promise.withResolvers<void>();
  const exited = Promise.withResolvers<number>();
  const fail = (error: unknown) => {
    started.reject(error);
    exited.reject(error);
  };
  started.promise.catch(() => undefined);
  exited.promise.catch(() => undefined);
  connection.failed.catch(fail);

  // What cannot be sent is lost with the connection, which `exited` reports.
  const send = (frame: PtyClientFrame | Uint8Array) => void connection.send(frame).catch(fail);
  const output = (data: Uint8Array) => {
    if (!options.onOutput(data)) connection.socket.pause();
  };
  connection.socket.on('message', (data, isBinary) => {
    if (isBinary) return output(bytesOf(data));
    const frame = parseFrame(String(data));
    switch (frame?.type) {
      case 'started':
        return started.resolve();
      case 'output':
        return output(Buffer.from(frame.data, 'base64'));
      case 'exit':
        return exited.resolve(frame.exit_code);
      case 'ping':
        return send({ type: 'pong' });
      case 'error':
        if (frame.fatal) fail(new ApiError(frame.error));
        return;
      case undefined:
        return fail(new CliError('The API sent a frame that this version of wrenn does not understand.'));
    }
  });

  const { cmd, args = [], envs, cwd, user, cols, rows } = options;
  send({ type: 'start', cmd, args: [...args], envs: { ...envs }, cwd, user, cols, rows, binary: true });
  try {
    await started.promise;
  } catch (error) {
    connection[Symbol.dispose]();
    throw error;
  }
  return {
    write: send,
    resize: (newCols, newRows) => send({ type: 'resize', cols: newCols, rows: newRows }),
    kill: () => send({ type: 'kill' }),
    resumeOutput: () => connection.socket.resume(),
    exited: exited.promise,
    [Symbol.dispose]: connection[Symbol.dispose],
  };
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
