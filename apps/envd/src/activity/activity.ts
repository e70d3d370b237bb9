import type { ProcessTable } from '../process/process-table.ts';
import { type CpuTime, machineCpuTime, startedCpuTime } from './cpu-time.ts';
import { type LeaseReport, readLeases } from './leases.ts';

/** What goes on in the guest, for whoever decides whether it is idle. */
export interface Activity extends LeaseReport {
  readonly cpu: CpuTime;
  /** Running processes that this envd started, whether or not somebody follows their output. */
  readonly processes: number;
  /** Clients that follow the output of a process. Terminals do not count: an open one says nothing about work. */
  readonly open_streams: number;
  /** Begin of the oldest of them, RFC 3339. */
  readonly open_streams_since: string | null;
}

export interface ActivityOptions {
  /** Whether the machine is envd's own, so that all of its CPU time counts. */
  readonly guest: boolean;
  /** Undefined: there are no leases here. */
  readonly leaseDirectory: string | undefined;
  readonly table: ProcessTable;
}

/** Reads all of it anew: between two calls nothing runs, so that asking is the only cost. */
export async function readActivity({ guest, leaseDirectory, table }: ActivityOptions): Promise<Activity> {
  const running = table.running();
  const report = leaseDirectory === undefined ? { leases: [], malformed_leases: [] } : await readLeases(leaseDirectory);
  const attachedAt = running
    .filter(({ input }) => input?.kind !== 'pty')
    .flatMap(({ log }) => log.readers().map((reader) => reader.attachedAt));
  return {
    ...report,
    cpu: guest ? machineCpuTime() : startedCpuTime(running.map(({ pid }) => pid)),
    processes: running.length,
    open_streams: attachedAt.length,
    open_streams_since: attachedAt.length > 0 ? new Date(Math.min(...attachedAt)).toISOString() : null,
  };
}
