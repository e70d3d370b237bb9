import type { Readable, Writable } from 'node:stream';
import {
  type ExecStreamClientFrame,
  type ProcessStreamServerFrame,
  processStreamServerFrameSchema,
} from '@wrenn/protocol/rest/process-stream';
import { CliError } from '../cli-error.ts';
import { ApiError } from './api-error.ts';
import type { ApiClient } from './client.ts';
import { type ApiSocket, openSocket } from './socket.ts';

/** A command in a capsule and where its streams go. */
export interface ExecOptions {
  readonly cmd: string;
  readonly args?: readonly string[];
  readonly envs?: Readonly<Record<string, string>>;
  readonly cwd?: string | undefined;
  readonly user?: string | undefined;
  /** Seconds until the command is killed; undefined is never. */
  readonly timeoutSec?: number | undefined;
  /** Copied to the command's standard input until it ends. Without it the command reads an empty input. */
  readonly stdin?: Readable | undefined;
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** Called once, with what sends a signal to the command's whole process group. */
  readonly onStarted?: (sendSignal: (signal: number) => void) => void;
}

export interface ExecExit {
  /** 128 + the signal when one ended the command. */
  readonly exitCode: number;
  readonly signal: number | null;
}

/**
 * Runs a command and copies its output as it comes, byte for byte and no faster than it is taken. When the signal
 * aborts, the command is killed.
 */
export async function execStreaming(
  api: ApiClient,
  capsuleId: string,
  options: ExecOptions,
  signal: AbortSignal,
): Promise<ExecExit> {
  const path = `/v1/capsules/${encodeURIComponent(capsuleId)}/exec/stream`;
  using connection = await openSocket(api.connection, path, signal);
  const send = (frame: ExecStreamClientFrame) => connection.send(frame);
  const ended = receive(connection, options, (number) => {
    send({ type: 'signal', signal: number }).catch(() => undefined);
  });
  // Where sending fails first, the reason is the same.
  ended.catch(() => undefined);
  const { cmd, args = [], envs, cwd, user, timeoutSec, stdin } = options;
  await send({
    type: 'start',
    cmd,
    args: [...args],
    envs: { ...envs },
    cwd,
    user,
    timeout_sec: timeoutSec,
    stdin: stdin !== undefined,
    encoding: 'base64',
  });
  const input = stdin === undefined ? new Promise<never>(() => undefined) : pump(stdin, send, ended);
  try {
    return await Promise.race([ended, connection.failed, input.then(() => ended)]);
  } catch (error) {
    if (signal.aborted) await send({ type: 'stop' }).catch(() => undefined);
    throw error;
  } finally {
    stdin?.destroy();
  }
}

/** Copies the input until it or the command ends. A command that reads no further is no error, as in a shell's pipe. */
async function pump(
  stdin: Readable,
  send: (frame: ExecStreamClientFrame) => Promise<void>,
  ended: Promise<ExecExit>,
): Promise<void> {
  let over = false;
  const stop = () => {
    over = true;
  };
  ended.then(stop, stop);
  try {
    for await (const chunk of stdin) {
      if (over) return;
      await send({ type: 'stdin', data_b64: Buffer.from(chunk).toString('base64') });
    }
    if (!over) await send({ type: 'stdin_end' });
  } catch (error) {
    if (!over) throw error;
  }
}

function receive({ socket }: ApiSocket, options: ExecOptions, sendSignal: (signal: number) => void): Promise<ExecExit> {
  return new Promise((resolve, reject) => {
    const write = (target: Writable, data: string) => {
      if (target.write(Buffer.from(data, 'base64'))) return;
      socket.pause();
      target.once('drain', () => socket.resume());
    };
    socket.on('message', (data) => {
      const frame = parseFrame(String(data));
      switch (frame?.type) {
        case 'start':
          options.onStarted?.(sendSignal);
          return;
        case 'stdout':
          return write(options.stdout, frame.data_b64 ?? '');
        case 'stderr':
          return write(options.stderr, frame.data_b64 ?? '');
        case 'exit':
          return resolve({ exitCode: frame.exit_code, signal: frame.signal });
        case 'error':
          return reject(new ApiError(frame.error));
        case undefined:
          return reject(new CliError('The API sent a frame that this version of wrenn does not understand.'));
      }
    });
  });
}

function parseFrame(text: string): ProcessStreamServerFrame | undefined {
  try {
    return processStreamServerFrameSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
