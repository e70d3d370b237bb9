import { setTimeout as delay } from 'node:timers/promises';
import { patientTimeout } from '@wrenn/config/patient-timeout';
import { WrennError } from '@wrenn/protocol/errors';
import { EXEC_OUTPUT_LIMIT_BYTES } from '@wrenn/protocol/rest/exec';
import type { Guest } from './guest.ts';
import { OutputCollector } from './output-collector.ts';
import { type Command, signalProcess, startProcess } from './processes.ts';

const SIGKILL = 9;
const KILL_TIMEOUT_MS = 10_000;
const KILL_RETRY_MS = 200;

/** How a command went that was run to its end. */
export interface ExecResult {
  readonly pid: number;
  readonly exitCode: number;
  readonly signal: number | null;
  readonly durationMs: number;
  readonly stdout: OutputCollector;
  readonly stderr: OutputCollector;
}

/**
 * Runs a command and collects its output. All of it is read; what is beyond the limit is only counted.
 *
 * @param timeoutMs undefined: it may run for ever. The guest kills it at that age
 * @param signal kills the command, unless it has a tag by which somebody can find it later
 * @throws WrennError `deadline_exceeded` after it was killed
 */
export async function execToEnd(
  guest: Guest,
  command: Command,
  timeoutMs: number | undefined,
  signal: AbortSignal,
): Promise<ExecResult> {
  const started = performance.now();
  const stdout = new OutputCollector(EXEC_OUTPUT_LIMIT_BYTES);
  const stderr = new OutputCollector(EXEC_OUTPUT_LIMIT_BYTES);
  await using process = openProcess(guest, command, timeoutMs, signal);
  for await (const output of process.output) {
    if (output.type === 'data') (output.stream === 'stderr' ? stderr : stdout).push(output.bytes);
    if (output.type === 'end') {
      const { exitCode, signal: ending } = output;
      const durationMs = Math.round(performance.now() - started);
      return { pid: process.pid ?? 0, exitCode, signal: ending, durationMs, stdout, stderr };
    }
  }
  throw new WrennError('guest_protocol_error', { id: guest.capsuleId });
}

/** Starts a command that goes on by itself. */
export async function execInBackground(guest: Guest, command: Command, signal: AbortSignal): Promise<number> {
  for await (const output of startProcess(guest, command, undefined, signal)) {
    if (output.type === 'start') return output.pid;
  }
  throw new WrennError('guest_protocol_error', { id: guest.capsuleId });
}

/** A started process and what comes from it. Disposing it kills a process that has neither ended nor a tag. */
export interface OpenProcess extends AsyncDisposable {
  readonly output: ReturnType<typeof startProcess>;
  /** Undefined until it has started. */
  readonly pid: number | undefined;
}

/** @param signal ends the output; a process whose start is still under way is waited for, so that it is not lost */
export function openProcess(
  guest: Guest,
  command: Command,
  timeoutMs: number | undefined,
  signal: AbortSignal,
): OpenProcess {
  const ended = new AbortController();
  let pid: number | undefined;
  let isOver = false;

  async function* follow(): ReturnType<typeof startProcess> {
    const abort = () => ended.abort(signal.reason);
    try {
      for await (const output of startProcess(guest, command, timeoutMs, ended.signal)) {
        if (output.type === 'start') {
          pid = output.pid;
          if (signal.aborted) abort();
          else signal.addEventListener('abort', abort, { once: true });
          signal.throwIfAborted();
        }
        if (output.type === 'end') isOver = true;
        yield output;
      }
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  return {
    output: follow(),
    get pid() {
      return pid;
    },
    [Symbol.asyncDispose]: async () => {
      ended.abort(new Error('no longer wanted'));
      if (isOver || pid === undefined || command.tag !== undefined) return;
      using limit = patientTimeout(KILL_TIMEOUT_MS);
      await killProcess(guest, String(pid), limit.signal);
    },
  };
}

/** Also where the host has just been lost: nobody could find the process later. */
async function killProcess(guest: Guest, pid: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    try {
      return await signalProcess(guest, pid, SIGKILL, signal);
    } catch (error) {
      // It ended by itself, or its guest is gone, and the process with it.
      if (error instanceof WrennError && ['process_not_found', 'guest_unreachable'].includes(error.code)) return;
      const isLost = error instanceof WrennError && error.code === 'host_unavailable';
      if (!isLost || signal.aborted) throw error;
      await delay(KILL_RETRY_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}
