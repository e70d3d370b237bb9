import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../cli-error.ts';
import type { LogFile } from './log-file.ts';

export type ProgramCommand = readonly [string, ...string[]];

/** One of the platform's programs. */
export interface ProgramOptions {
  /** As people know it, e.g. "wrenn-agent". */
  readonly name: string;
  /** What to run; a function is asked at each start. */
  readonly command: ProgramCommand | (() => ProgramCommand);
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: LogFile;
  /** Called each time that the program ended without being told to. */
  readonly onEnded: (event: { description: string; restartInMs: number }) => void;
  readonly backoff?: Backoff;
}

export interface Backoff {
  readonly firstMs: number;
  readonly maxMs: number;
  /** A program that ran this long starts over with `firstMs`. */
  readonly healthyAfterMs: number;
}

const BACKOFF: Backoff = { firstMs: 500, maxMs: 30_000, healthyAfterMs: 60_000 };

/** Keeps a program running until it is stopped. */
export interface SupervisedProgram {
  readonly pid: number | undefined;
  /** Asks the program to end, and ends it by force when `graceMs` is over. Resolves when it is gone. */
  stop(graceMs: number): Promise<void>;
}

/**
 * Starts a program in a process group of its own, so that Ctrl-C reaches only us, and starts it again whenever it ends.
 * It is told to end (SIGTERM) by the kernel, should this process die.
 */
export function supervise(options: ProgramOptions): SupervisedProgram {
  const { firstMs, maxMs, healthyAfterMs } = options.backoff ?? BACKOFF;
  const stopped = new AbortController();
  let child: ChildProcess | undefined;

  const run = async () => {
    let restartInMs = firstMs;
    while (!stopped.signal.aborted) {
      const startedAt = performance.now();
      child = start(options);
      const description = await ending(child);
      if (stopped.signal.aborted) return;
      if (performance.now() - startedAt >= healthyAfterMs) restartInMs = firstMs;
      options.onEnded({ description, restartInMs });
      await delay(restartInMs, undefined, { signal: stopped.signal }).catch(() => undefined);
      restartInMs = Math.min(restartInMs * 2, maxMs);
    }
  };
  const finished = run();

  return {
    get pid() {
      return child?.pid;
    },
    async stop(graceMs) {
      stopped.abort();
      child?.kill('SIGTERM');
      const timer = setTimeout(() => child?.kill('SIGKILL'), graceMs);
      await finished;
      clearTimeout(timer);
    },
  };
}

function start({ command, env, log }: ProgramOptions): ChildProcess {
  // prctl(PR_SET_PDEATHSIG) is kept over exec, see prctl(2).
  const child = spawn(
    'setpriv',
    ['--pdeathsig', 'TERM', '--', ...(typeof command === 'function' ? command() : command)],
    {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    },
  );
  child.stdout.on('data', (data: Buffer) => log.append(data));
  child.stderr.on('data', (data: Buffer) => log.append(data));
  return child;
}

/** A grandchild may hold the pipes of a program that has ended; what is readable within this time counts. */
const DRAIN_MS = 500;

/** How a child ended, once what it wrote is read. */
async function ending(child: ChildProcess): Promise<string> {
  const closed = once(child, 'close');
  closed.catch(() => undefined);
  try {
    const [code, signal] = await once(child, 'exit');
    await Promise.race([closed, delay(DRAIN_MS, undefined, { ref: false })]);
    // Whoever holds them still: nobody takes what they write.
    child.stdout?.destroy();
    child.stderr?.destroy();
    return signal ? `was ended by ${signal}` : `ended with code ${code}`;
  } catch (error) {
    return `could not be started: ${messageOf(error)}`;
  }
}
