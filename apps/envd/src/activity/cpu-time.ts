import { readFileSync } from 'node:fs';
import { parseCpuTimes } from '../system/metrics.ts';

/** Length of a tick of /proc; every Linux that Node runs on shows 100 of them a second to its programs (time(7)). */
const TICK_MS = 10;

export interface CpuTime {
  /** CPU time that was used, of all CPUs together, without envd's own. Its difference over that of `uptime_ms` is the vCPUs in use. */
  readonly busy_ms: number;
  readonly uptime_ms: number;
}

/**
 * What the whole machine has used since its boot, but for this envd: under emulation an answer costs it up to 70 ms, and
 * a guest that is asked often must not look as if it were at work.
 */
export function machineCpuTime(): CpuTime {
  const { busy } = parseCpuTimes(readFileSync('/proc/stat', 'utf8'));
  const [uptimeSec] = readFileSync('/proc/uptime', 'utf8').split(' ');
  const { user, system } = process.cpuUsage();
  const busyMs = busy * TICK_MS - (user + system) / 1000;
  return { busy_ms: Math.max(0, Math.round(busyMs)), uptime_ms: Math.round(Number(uptimeSec) * 1000) };
}

/**
 * What the processes that this envd started have used, for machines that are not its own. Less than before when one has
 * ended.
 */
export function startedCpuTime(pids: readonly number[]): CpuTime {
  const busyMs = pids.reduce((sum, pid) => sum + processCpuMs(pid), 0);
  return { busy_ms: busyMs, uptime_ms: Math.round(performance.now()) };
}

/** CPU time of a process and of its ended children; 0 when it is gone. */
function processCpuMs(pid: number): number {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    // It ended in this very moment.
    return 0;
  }
  // utime stime cutime cstime, fields 14 to 17; the name in parentheses, field 2, may hold anything (proc(5)).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks) * TICK_MS, 0);
}
