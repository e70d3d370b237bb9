import { create } from '@bufbuild/protobuf';
import type { CallOptions } from '@connectrpc/connect';
import { WrennError } from '@wrenn/protocol/errors';
import {
  type ProcessEvent,
  ProcessInputSchema,
  type ProcessSelector,
  ProcessSelectorSchema,
} from '@wrenn/protocol/gen/process/process_pb';
import type { ProcessInfoBody } from '@wrenn/protocol/rest/exec';
import type { Guest } from './guest.ts';
import { type GuestCall, toGuestError, toStreamError } from './guest-errors.ts';

const CALL_TIMEOUT_MS = 30_000;
const CLOSING_MS = 1000;
/** How long a guest may take to kill a command whose time is over, and to say so. */
const OVERDUE_MS = 10_000;

/** What to start. */
export interface Command {
  readonly cmd: string;
  readonly args: readonly string[];
  readonly envs: Readonly<Record<string, string>>;
  readonly cwd: string | undefined;
  /** Undefined: the default user of the capsule. */
  readonly user: string | undefined;
  readonly tag: string | undefined;
  readonly stdin: boolean;
  readonly pty: { readonly cols: number; readonly rows: number } | undefined;
}

/** What a process tells while it is attached to. `offset` counts the bytes of all its streams together. */
export type ProcessOutput =
  | { readonly type: 'start'; readonly pid: number; readonly offset: number }
  | {
      readonly type: 'data';
      readonly stream: 'stdout' | 'stderr' | 'pty';
      readonly bytes: Uint8Array;
      readonly offset: number;
    }
  /** `exitCode` is 128 + signal when a signal ended it. */
  | {
      readonly type: 'end';
      readonly exitCode: number;
      readonly signal: number | null;
      readonly offset: number;
      /** Whether the deadline that it was started with ended it. */
      readonly isOverdue: boolean;
    };

/**
 * Starts a process and yields its output to its end. Ending the iteration leaves the process alone.
 *
 * @param timeoutMs when given, envd kills the process group at this age and the iteration throws `deadline_exceeded`
 */
export async function* startProcess(
  guest: Guest,
  command: Command,
  timeoutMs: number | undefined,
  signal: AbortSignal,
): AsyncGenerator<ProcessOutput> {
  const { cmd, args, envs, cwd, user, tag, stdin, pty } = command;
  const request = {
    process: { cmd, args: [...args], envs: { ...envs }, ...(cwd === undefined ? {} : { cwd }) },
    stdin,
    ...(tag === undefined ? {} : { tag }),
    ...(pty === undefined ? {} : { pty: { size: pty } }),
  };
  if (timeoutMs === undefined) {
    const call = { capsuleId: guest.capsuleId, command: cmd };
    yield* readOutput(
      (ended) => guest.processes.start(request, { signal: ended, headers: asUser(user) }),
      call,
      signal,
    );
    return;
  }
  const call = { capsuleId: guest.capsuleId, command: cmd, timeout: { what: 'The command', ms: timeoutMs } };
  // Not the call's own timeout, which would end the stream here before the guest has told how it ended there.
  const headers = { ...asUser(user), 'connect-timeout-ms': String(timeoutMs) };
  const overdue = AbortSignal.timeout(timeoutMs + OVERDUE_MS);
  try {
    const open = (ended: AbortSignal) => guest.processes.start(request, { signal: ended, headers });
    yield* readOutput(open, call, AbortSignal.any([signal, overdue]));
  } catch (error) {
    if (error !== overdue.reason) throw error;
    throw new WrennError('deadline_exceeded', { what: 'The command', timeout_ms: timeoutMs });
  }
}

/**
 * Yields the output of a process that runs or lately ended.
 *
 * @param fromOffset replay kept output from here on; undefined: only what comes from now on
 */
export async function* attachProcess(
  guest: Guest,
  selector: string,
  fromOffset: number | undefined,
  signal: AbortSignal,
): AsyncGenerator<ProcessOutput> {
  const events = (ended: AbortSignal) =>
    guest.processes.connect(
      {
        process: toSelector(selector),
        ...(fromOffset === undefined ? {} : { fromOffset: BigInt(fromOffset) }),
      },
      { signal: ended },
    );
  yield* readOutput(events, { capsuleId: guest.capsuleId, selector }, signal);
}

export async function listProcesses(guest: Guest, signal: AbortSignal): Promise<ProcessInfoBody[]> {
  const { processes } = await unary(guest, {}, (options) => guest.processes.list({}, options), signal);
  return processes.map(({ config, pid, tag, outputOffset }) => ({
    pid,
    tag: tag ?? null,
    cmd: config?.cmd ?? '',
    args: config?.args ?? [],
    cwd: config?.cwd ?? null,
    output_offset: Number(outputOffset),
  }));
}

/** Signals the whole process group. */
export async function signalProcess(
  guest: Guest,
  selector: string,
  number: number,
  signal: AbortSignal,
): Promise<void> {
  await unary(
    guest,
    { selector },
    (options) => guest.processes.sendSignal({ process: toSelector(selector), signal: number }, options),
    signal,
  );
}

/** One piece of a process's input. */
export interface InputPiece {
  readonly kind: 'stdin' | 'pty';
  readonly bytes: Uint8Array;
  /** Who writes, and how many bytes this writer wrote before: a piece that is sent again is written once. */
  readonly writer: string;
  readonly offset: number;
}

/** Resolves when the process has taken all of it, which may be as late as it likes. */
export async function sendInput(
  guest: Guest,
  selector: string,
  { kind, bytes, writer, offset }: InputPiece,
  signal: AbortSignal,
): Promise<void> {
  const input = create(ProcessInputSchema, { input: { case: kind, value: bytes } });
  const request = { process: toSelector(selector), input, writer, offset: BigInt(offset) };
  try {
    await guest.processes.sendInput(request, { signal });
  } catch (error) {
    throw toGuestError(error, { capsuleId: guest.capsuleId, selector });
  }
}

export async function closeStdin(guest: Guest, selector: string, signal: AbortSignal): Promise<void> {
  await unary(
    guest,
    { selector },
    (options) => guest.processes.closeStdin({ process: toSelector(selector) }, options),
    signal,
  );
}

export async function resizePty(
  guest: Guest,
  selector: string,
  size: { cols: number; rows: number },
  signal: AbortSignal,
): Promise<void> {
  await unary(
    guest,
    { selector },
    (options) => guest.processes.update({ process: toSelector(selector), pty: { size } }, options),
    signal,
  );
}

/** Only digits: a pid. Anything else: a tag. */
function toSelector(selector: string): ProcessSelector {
  const pid = /^\d+$/.test(selector) ? Number(selector) : undefined;
  if (pid !== undefined && pid > 0xffff_ffff) throw new WrennError('process_not_found', { selector });
  return create(ProcessSelectorSchema, {
    selector: pid === undefined ? { case: 'tag', value: selector } : { case: 'pid', value: pid },
  });
}

/** envd takes the user from HTTP Basic credentials without a password, as E2B's clients send it. */
export function asUser(user: string | undefined): Record<string, string> {
  return user === undefined ? {} : { authorization: `Basic ${Buffer.from(`${user}:`).toString('base64')}` };
}

async function unary<T>(
  guest: Guest,
  call: Omit<GuestCall, 'capsuleId'>,
  run: (options: CallOptions) => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  try {
    return await run({ signal, timeoutMs: CALL_TIMEOUT_MS });
  } catch (error) {
    const timeout = { what: 'The guest agent', ms: CALL_TIMEOUT_MS };
    throw toGuestError(error, { capsuleId: guest.capsuleId, timeout, ...call });
  }
}

async function* readOutput(
  open: (signal: AbortSignal) => AsyncIterable<{ event?: ProcessEvent | undefined }>,
  call: GuestCall,
  signal: AbortSignal,
): AsyncGenerator<ProcessOutput> {
  const done = new AbortController();
  let end: ProcessOutput | undefined;
  let began = false;
  let closing: NodeJS.Timeout | undefined;
  try {
    for await (const { event } of open(AbortSignal.any([signal, done.signal]))) {
      began = true;
      if (end) continue;
      const output = toOutput(event);
      if (output?.type === 'end') {
        end = output;
        // The stream ends now by itself, and its connection can be used again; a guest that keeps it open is cut off.
        closing = setTimeout(() => done.abort(), CLOSING_MS);
      } else if (output) {
        yield output;
      }
    }
  } catch (error) {
    signal.throwIfAborted();
    const known = began ? toStreamError(error, call) : toGuestError(error, call);
    // After the end only one error means something: that it was the deadline that ended the process.
    if (!end || known.code === 'deadline_exceeded') throw known;
  } finally {
    clearTimeout(closing);
    // Whoever stops iterating no longer wants the stream.
    done.abort();
  }
  // Without an end it is never taken for a success: how the process ended is not known.
  const problem = 'the connection to it ended before the process did';
  if (!end) throw new WrennError('guest_unreachable', { id: call.capsuleId, problem });
  yield end;
}

function toOutput(event: ProcessEvent | undefined): ProcessOutput | undefined {
  switch (event?.event.case) {
    case 'start': {
      const { pid, offset } = event.event.value;
      return { type: 'start', pid, offset: Number(offset) };
    }
    case 'data': {
      const { output, offset } = event.event.value;
      if (output.case === undefined) return undefined;
      return { type: 'data', stream: output.case, bytes: output.value, offset: Number(offset) };
    }
    case 'end': {
      const { exitCode, exited, signal, outputOffset, error } = event.event.value;
      return {
        type: 'end',
        exitCode: exited || signal === undefined ? exitCode : 128 + signal,
        signal: signal ?? null,
        offset: Number(outputOffset),
        isOverdue: error?.startsWith('deadline exceeded') ?? false,
      };
    }
    default:
      return undefined;
  }
}
