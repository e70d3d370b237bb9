import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { constants, getPriority, setPriority } from 'node:os';
import { WrennError } from '@wrenn/protocol/errors';
import { errnoOf } from '../errors.ts';
import { createPipe } from '../native/libc.ts';
import type { LaunchPlan } from './launch-plan.ts';
import { withChildScore } from './oom-score.ts';
import type { OutputStream } from './output-chunk.ts';
import { ProcessInput } from './process-input.ts';

export interface LaunchOptions {
  readonly plan: LaunchPlan;
  /** As the user called it, for messages. */
  readonly command: string;
  readonly cwd: string;
  readonly environment: Record<string, string>;
}

/** How a process ended. */
export type ProcessExit =
  | { readonly kind: 'exit'; readonly code: number }
  | { readonly kind: 'signal'; readonly signal: number };

/** One stream of output, still to be read. */
export interface OutputSource {
  readonly stream: OutputStream;
  readonly socket: Socket;
}

/** A process that has just been started. */
export interface LaunchedProcess {
  readonly pid: number;
  readonly input: ProcessInput | undefined;
  readonly sources: readonly OutputSource[];
  readonly exited: Promise<ProcessExit>;
  /** Sets the size of its terminal, where it has one. */
  readonly resize: ((size: TerminalSize) => void) | undefined;
}

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

/** Starts a process on pipes, in a session and process group of its own. Fails with `command_not_found`. */
export async function launchOnPipes(options: LaunchOptions, wantsStdin: boolean): Promise<LaunchedProcess> {
  const stdout = createPipe();
  const stderr = createPipe();
  const stdin = wantsStdin ? createPipe() : undefined;
  const ours = [stdout.readFd, stderr.readFd, ...(stdin ? [stdin.writeFd] : [])];
  const theirs = [stdout.writeFd, stderr.writeFd, ...(stdin ? [stdin.readFd] : [])];
  let child: ChildProcess;
  try {
    child = withChildScore(() =>
      spawn(options.plan.file, options.plan.args, {
        argv0: options.plan.argv0,
        cwd: options.cwd,
        env: options.environment,
        stdio: [stdin?.readFd ?? 'ignore', stdout.writeFd, stderr.writeFd],
        detached: true,
        ...(options.plan.credentials ?? {}),
      }),
    );
  } catch (error) {
    for (const fd of ours) closeSync(fd);
    throw startError(options.command, error);
  } finally {
    for (const fd of theirs) closeSync(fd);
  }
  const exited = new Promise<ProcessExit>((resolve) => {
    child.once('exit', (code, signal) => resolve(toExit(code, signal)));
  });
  if (child.pid === undefined) {
    for (const fd of ours) closeSync(fd);
    const failure = await new Promise<Error>((resolve) => child.once('error', resolve));
    throw startError(options.command, failure);
  }
  resetNiceness(child.pid);
  const input = stdin && new ProcessInput('stdin', new Socket({ fd: stdin.writeFd, readable: false, writable: true }));
  input?.setPid(child.pid);
  return {
    pid: child.pid,
    input,
    sources: [
      { stream: 'stdout', socket: new Socket({ fd: stdout.readFd, readable: true, writable: false }) },
      { stream: 'stderr', socket: new Socket({ fd: stderr.readFd, readable: true, writable: false }) },
    ],
    exited,
    resize: undefined,
  };
}

/** The niceness of a user's process is 0, whatever envd's own is. */
export function resetNiceness(pid: number): void {
  if (getPriority() !== 0) setPriority(pid, 0);
}

function toExit(code: number | null, signal: NodeJS.Signals | null): ProcessExit {
  if (signal !== null) return { kind: 'signal', signal: constants.signals[signal] };
  // libuv gives one of the two; the number 0 would claim a success that nobody saw.
  return code === null ? { kind: 'signal', signal: 0 } : { kind: 'exit', code };
}

export function startError(command: string, error: unknown): WrennError {
  const problem = START_PROBLEMS[errnoOf(error) ?? ''] ?? `the system refused it (${errnoOf(error) ?? 'unknown'})`;
  return new WrennError('command_not_found', { command, problem }, { cause: error });
}

const START_PROBLEMS: Partial<Record<string, string>> = {
  ENOENT: 'the program, its interpreter or its working directory does not exist',
  EACCES: 'it is not executable for its user',
  EPERM: 'its user may not run it',
  ENOEXEC: 'it is no program of this machine',
  ENOTDIR: 'its working directory is not a directory',
  E2BIG: 'its arguments and environment are too large',
  EAGAIN: 'the guest cannot take more processes',
  ENOMEM: 'the guest has too little memory',
  EMFILE: 'the guest agent has too many files open',
};
