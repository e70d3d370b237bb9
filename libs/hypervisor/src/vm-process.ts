import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

/** A process of this boot. The start time tells it from a later process with the same pid. */
export interface ProcessKey {
  readonly pid: number;
  /** Field 22 of /proc/{pid}/stat: clock ticks from the boot of the host to the start of the process. */
  readonly startTicks: string;
}

/** @returns undefined where there is no such process, or it has ended and only waits for its parent. */
function readStartTicks(pid: number): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  // Field 2 is the program's name in brackets and may itself hold spaces and brackets.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const state = fields[0];
  return state === 'Z' || state === 'X' ? undefined : fields[19];
}

/** The key of a process that runs now; undefined where there is none. */
export function processKey(pid: number): ProcessKey | undefined {
  const startTicks = readStartTicks(pid);
  return startTicks === undefined ? undefined : { pid, startTicks };
}

export function isRunning(key: ProcessKey): boolean {
  return readStartTicks(key.pid) === key.startTicks;
}

/** Whether `word` is one of the arguments that the process was started with. */
export async function hasArgument(key: ProcessKey, word: string): Promise<boolean> {
  const commandLine = await readFile(`/proc/${key.pid}/cmdline`, 'utf8').catch(() => '');
  return commandLine.split('\0').includes(word);
}

/** Whoever stood still has seen nothing of the time that is over. */
const LOOKS_AFTER_TIMEOUT = 3;

/** Waits until the process is gone. @returns false where it still runs after `timeoutMs`. */
export async function waitUntilGone(key: ProcessKey, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  // Node has no pidfd, and /proc sends no inotify events: ask often at first, because the end is near when this is called.
  for (let pauseMs = 1, looksAfter = 0; isRunning(key); pauseMs = Math.min(pauseMs * 2, 50)) {
    if (performance.now() > deadline) looksAfter += 1;
    if (looksAfter > LOOKS_AFTER_TIMEOUT) return false;
    await delay(pauseMs);
  }
  return true;
}

/** The kernel needs long where a machine has little memory left, or stands still itself. */
const KILL_TIMEOUT_MS = 60_000;

/**
 * Ends the process by SIGKILL and waits until it is gone. Does nothing to another process that has its pid now.
 *
 * @throws Error where the kernel does not end it within a minute.
 */
export async function killProcess(key: ProcessKey): Promise<void> {
  if (!isRunning(key)) return;
  try {
    process.kill(key.pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
  if (!(await waitUntilGone(key, KILL_TIMEOUT_MS))) throw new Error(`Process ${key.pid} does not end`);
}
