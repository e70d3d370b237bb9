import { WrennError } from '@wrenn/protocol/errors';
import { type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type HostFilters, hostFilters } from './host-filters.ts';
import { type Room, roomColumns, roomFor } from './host-room.ts';
import type { Needs } from './needs.ts';
import type { PlacementDeps } from './place-capsule.ts';

type Stage = keyof HostFilters | 'reach';

/** In which order what lacks is told: of the first that no host has. */
const STAGES = [
  'online',
  'own',
  'reach',
  'source',
  'template',
  'shape',
  'tags',
  'store',
  'machine',
  'cordon',
  'disk',
  'room',
] as const satisfies readonly Stage[];

type HostRow = { id: string; cpus: number; memory: number; memory_free: number; disk_free: number } & Record<
  keyof HostFilters,
  boolean
>;

/** Why no host takes a capsule: as near to success as the nearest of them came. */
export async function explainRefusal(tx: Db, deps: PlacementDeps, needs: Needs): Promise<WrennError> {
  const { settings, isReachable = () => true } = deps;
  const filters = Object.entries(hostFilters(settings, needs)) as [keyof HostFilters, SQL][];
  const columns = filters.map(([name, condition]) => sql`${condition} AS ${sql.identifier(name)}`);
  const { rows } = await tx.execute<HostRow>(sql`
    SELECT h.id, h.cpu_count AS cpus, h.memory_mb AS memory, floor(r.memory_free)::float8 AS memory_free,
      floor(r.disk_free)::float8 AS disk_free, ${sql.join(columns, sql`, `)}
    FROM hosts h JOIN host_load l ON l.host_id = h.id CROSS JOIN LATERAL (SELECT ${roomColumns(settings)}) r
    WHERE h.deleted_at IS NULL`);
  let left = rows;
  for (const stage of STAGES) {
    const passed = left.filter((host) => (stage === 'reach' ? isReachable(host.id) : host[stage]));
    if (passed.length === 0) return refusalAt(stage, needs, left);
    left = passed;
  }
  return new WrennError('no_hosts_available', { problem: 'every host that could have it was filled meanwhile' });
}

/** @param left the hosts that came as far as that */
function refusalAt(stage: Stage, needs: Needs, left: readonly HostRow[]): WrennError {
  const { vcpus, memoryMb: memory_mb, hostTags = [] } = needs;
  const none = (problem: string) => new WrennError('no_hosts_available', { problem });
  switch (stage) {
    case 'online':
    case 'reach':
      return none('no host is online');
    case 'own':
      return none('no host that this team may use is online');
    case 'source':
      return none('no host that has the snapshot, or can fetch it, is online');
    case 'template':
      return new WrennError('template_not_found', { name: needs.template ?? '' });
    case 'shape': {
      const [cpus, memory] = [Math.max(...left.map((host) => host.cpus)), Math.max(...left.map((host) => host.memory))];
      const problem = `the largest host has ${cpus} vCPUs and ${memory} MiB of memory`;
      return new WrennError('invalid_shape', { vcpus, memory_mb, problem });
    }
    case 'tags':
      return none(`no host has the tags ${[...hostTags].join(', ')}`);
    case 'store':
      return none('no host is online that uses the object store where it sleeps');
    case 'machine':
      return none('no host has the architecture and hypervisor that its memory was saved with');
    case 'cordon':
      return none('every host that could have it is cordoned');
    case 'disk':
      return none('the disk of every host that could have it is nearly full');
    case 'room':
      return none(describeFull(roomFor(needs), left));
  }
}

type FreeRoom = Pick<HostRow, 'memory_free' | 'disk_free'>;

function describeFull({ memoryMb, diskMb }: Room, hosts: readonly FreeRoom[]): string {
  const memoryFree = Math.max(0, ...hosts.map((host) => host.memory_free));
  if (memoryFree < memoryMb) {
    return `${memoryMb} MiB of memory were asked for, and no host has more than ${memoryFree} MiB left`;
  }
  const diskFree = Math.max(0, ...hosts.map((host) => host.disk_free));
  if (diskFree < diskMb) return `${diskMb} MiB of disk were asked for, and no host has more than ${diskFree} MiB left`;
  return 'the hosts with enough memory left have not enough disk left';
}

/** Why a host has no room for more of a capsule that is there. */
export async function explainFullHost(
  tx: Db,
  { settings }: PlacementDeps,
  hostId: string,
  { memoryMb, diskMb }: Room,
): Promise<WrennError> {
  const { rows } = await tx.execute<FreeRoom>(sql`
    SELECT floor(r.memory_free)::float8 AS memory_free, floor(r.disk_free)::float8 AS disk_free
    FROM hosts h JOIN host_load l ON l.host_id = h.id CROSS JOIN LATERAL (SELECT ${roomColumns(settings)}) r
    WHERE h.id = ${hostId}`);
  const [host] = rows;
  if (!host) return new WrennError('host_unavailable');
  const { memory_free, disk_free } = host;
  return new WrennError('no_hosts_available', {
    problem:
      memory_free < memoryMb
        ? `it needs ${Math.ceil(memoryMb)} MiB more of memory, and its host has ${Math.max(0, memory_free)} MiB left`
        : `it needs ${Math.ceil(diskMb)} MiB more of disk, and its host has ${Math.max(0, disk_free)} MiB left`,
  });
}
