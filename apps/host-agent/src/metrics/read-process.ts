import { readFileSync } from 'node:fs';

/** Field 14 and 15 of /proc/{pid}/stat count in these, on every architecture. */
const TICKS_PER_SECOND = 100;

export interface ProcessUse {
  /** Of all its threads since it began, in user and kernel mode. */
  readonly cpuSeconds: number;
  /**
   * What the host holds for it alone: anonymous and shared memory. The pages of a snapshot that it has only read are
   * not in it: they are in the page cache once, for all VMs that were restored from it.
   */
  readonly memoryBytes: number;
}

/**
 * What a process uses. Reads synchronously: the kernel answers from memory within microseconds, without a lock of the
 * process (`smaps_rollup` would walk all of a guest's pages), and a thread pool would cost several times as much.
 *
 * @returns undefined where there is no such process, or a later one has its pid
 */
export function readProcessUse(pid: number, startTicks: string): ProcessUse | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // Field 2 is the program's name in brackets and may itself hold spaces and brackets.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields[19] !== startTicks) return undefined;
    const ticks = Number(fields[11]) + Number(fields[12]);
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    return {
      cpuSeconds: ticks / TICKS_PER_SECOND,
      memoryBytes: (kibOf(status, 'RssAnon') + kibOf(status, 'RssShmem')) * 1024,
    };
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

function kibOf(status: string, name: string): number {
  const start = status.indexOf(`\n${name}:`);
  return start < 0 ? 0 : Number.parseInt(status.slice(start + name.length + 2), 10);
}
