import type { HostCapacity } from '../vms/check-spec.ts';
import type { WarmPoolStats } from './warm-pool.ts';

/**
 * Half: each VM is counted with all of its memory, of which one that waits really holds some 100 MiB, and every VM that
 * is asked for takes the memory of those that wait.
 */
const MEMORY_SHARE = 1 / 2;
/** Of the machine's memory, that filling leaves free, so that hardly ever somebody has to wait until it is given back. */
const RESERVE_SHARE = 1 / 8;
const READY_SLOTS = { least: 2, most: 16 } as const;

/** What VMs of the pool may take when nobody says otherwise, and what filling leaves free. */
export function poolLimits({ memoryMb }: HostCapacity): { maxMb: number; reserveMb: number } {
  return { maxMb: Math.floor(memoryMb * MEMORY_SHARE), reserveMb: Math.floor(memoryMb * RESERVE_SHARE) };
}

/** Network slots to keep ready: VMs of the pool have theirs already, so as many as creates may miss there. */
export function readySlots({ wanted, waiting }: WarmPoolStats): number {
  return Math.min(READY_SLOTS.most, READY_SLOTS.least + Math.max(0, wanted - waiting));
}

/** How many VMs are started at once: starts keep a CPU busy, and wait for little else. */
export function startsAtOnce({ cpus }: Pick<HostCapacity, 'cpus'>): number {
  return 2 * cpus;
}
