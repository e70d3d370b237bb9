import { type SQL, sql } from 'drizzle-orm';
import type { Needs } from './needs.ts';
import type { PlacementSettings } from './placement-settings.ts';

/** What a capsule takes of a disk whose size its template decides; the trigger that counts capsules says the same. */
const DEFAULT_DISK_MB = 1024;

/** Room on a host, in MiB. */
export interface Room {
  readonly memoryMb: number;
  readonly diskMb: number;
}

/** What a new capsule takes. */
export function roomFor({ memoryMb, diskMb }: Needs): Room {
  return { memoryMb, diskMb: diskMb || DEFAULT_DISK_MB };
}

/**
 * Columns `memory_total`, `memory_free`, `cpu_total`, `cpu_free`, `disk_total`, `disk_free` of a host `h` with its load
 * `l`, in MiB and vCPUs. A host that does not say how large its disk is has no limit of it.
 */
export function roomColumns(settings: PlacementSettings): SQL {
  const { reservedMemory, reservedCpu, reservedDisk, asleepMemory, asleepDisk } = settings;
  const memory = sql`h.memory_mb * ${(1 - reservedMemory) * settings.memoryOvercommit}::float8`;
  const cpu = sql`h.cpu_count * ${(1 - reservedCpu) * settings.cpuOvercommit}::float8`;
  const disk = sql`coalesce(h.disk_mb * ${(1 - reservedDisk) * settings.diskOvercommit}::float8, 1e15)`;
  return sql`
    ${memory} AS memory_total,
    ${memory} - (l.memory_mb + l.asleep_memory_mb * ${asleepMemory}::float8) AS memory_free,
    ${cpu} AS cpu_total,
    ${cpu} - l.vcpus AS cpu_free,
    ${disk} AS disk_total,
    ${disk} - (l.disk_mb + l.asleep_disk_mb * ${asleepDisk}::float8) AS disk_free`;
}

/** Whether that much is left of room `r`. */
export function hasRoom({ memoryMb, diskMb }: Room): SQL {
  return sql`(r.memory_free >= ${memoryMb}::float8 AND r.disk_free >= ${diskMb}::float8)`;
}

/** The scarcest of what would be left beside so many such capsules, as a share: the higher, the better. */
export function scoreOf(needs: Needs, capsules = 1): SQL {
  const { memoryMb, diskMb } = roomFor(needs);
  return sql`least(
    (r.memory_free - ${memoryMb * capsules}::float8) / greatest(r.memory_total, 1),
    (r.cpu_free - ${needs.vcpus * capsules}::float8) / greatest(r.cpu_total, 1),
    (r.disk_free - ${diskMb * capsules}::float8) / greatest(r.disk_total, 1))`;
}
