import { readFile, statfs } from 'node:fs/promises';
import { availableParallelism } from 'node:os';

/** E2B's names and units. */
export interface Metrics {
  /** Unix time in seconds. */
  ts: number;
  cpu_count: number;
  /** Since the call before, or since the boot; two decimals. */
  cpu_used_pct: number;
  mem_total_mib: number;
  mem_used_mib: number;
  /** Bytes, as all below. */
  mem_total: number;
  mem_used: number;
  mem_cache: number;
  disk_used: number;
  disk_total: number;
}

interface CpuTimes {
  readonly busy: number;
  readonly total: number;
}

const MIB = 1024 * 1024;
let lastCpu: CpuTimes = { busy: 0, total: 0 };

export async function readMetrics(): Promise<Metrics> {
  const [stat, meminfo, disk] = await Promise.all([
    readFile('/proc/stat', 'utf8'),
    readFile('/proc/meminfo', 'utf8'),
    statfs('/'),
  ]);
  const cpu = parseCpuTimes(stat);
  const elapsed = cpu.total - lastCpu.total;
  const used = elapsed > 0 ? ((cpu.busy - lastCpu.busy) / elapsed) * 100 : 0;
  lastCpu = cpu;
  const memory = parseMeminfo(meminfo);
  return {
    ts: Math.floor(Date.now() / 1000),
    cpu_count: availableParallelism(),
    cpu_used_pct: Math.round(Math.max(0, used) * 100) / 100,
    mem_total_mib: Math.floor(memory.total / MIB),
    mem_used_mib: Math.floor(memory.used / MIB),
    mem_total: memory.total,
    mem_used: memory.used,
    mem_cache: memory.cache,
    disk_used: (disk.blocks - disk.bavail) * disk.bsize,
    disk_total: disk.blocks * disk.bsize,
  };
}

/** The first line of /proc/stat, in ticks: user nice system idle iowait irq softirq steal (proc(5)). */
export function parseCpuTimes(stat: string): CpuTimes {
  const ticks = /^cpu +(.*)$/m.exec(stat)?.[1]?.split(' ').map(Number).slice(0, 8) ?? [];
  const total = ticks.reduce((sum, value) => sum + value, 0);
  const idle = (ticks[3] ?? 0) + (ticks[4] ?? 0);
  return { total, busy: total - idle };
}

/** Bytes, from /proc/meminfo. Used is what a new program could not have. */
export function parseMeminfo(meminfo: string): { total: number; used: number; cache: number } {
  const bytes = (name: string) => Number(new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(meminfo)?.[1] ?? 0) * 1024;
  const total = bytes('MemTotal');
  return { total, used: total - bytes('MemAvailable'), cache: bytes('Cached') };
}
