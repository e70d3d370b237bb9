import type { HostBody } from '@wrenn/protocol/rest/hosts';
import type { HostRow, hostLoad } from '../database/host-schema.ts';
import type { PlacementSettings } from '../placement/placement-settings.ts';

/** A host with what other tables say of it. */
export interface HostDetails {
  readonly host: HostRow;
  readonly teamName: string | null;
  readonly tags: readonly string[];
  readonly load: typeof hostLoad.$inferSelect | null;
}

/** `host:port`, as people write it. */
export function addressOf({ address }: Pick<HostRow, 'address'>): string | null {
  return address?.replace(/^https:\/\//, '') ?? null;
}

/** @param minDiskFree the share of its disk that must be free for new capsules */
export function toHostBody(
  { host, teamName, tags, load }: HostDetails,
  { minDiskFree }: Pick<PlacementSettings, 'minDiskFree'>,
): HostBody {
  return {
    ...{ id: host.id, type: host.type, team_id: host.teamId, team_name: teamName },
    ...{ provider: host.provider, availability_zone: host.availabilityZone, arch: host.arch },
    ...{ cpu_cores: host.cpuCount, memory_mb: host.memoryMb },
    disk_gb: host.diskMb === null ? null : Math.floor(host.diskMb / 1024),
    ...{ disk_free_mb: host.diskFreeMb, hypervisor: host.hypervisor, accelerator: host.accelerator },
    ...{ agent_version: host.agentVersion, templates: host.templates, tags: [...tags] },
    ...{ address: addressOf(host), connection: host.connection, status: host.status },
    cordoned: host.cordonedAt !== null,
    ...{ drain: host.drainMode, problem: problemOf(host, minDiskFree), unknown_vms: host.unknownVms },
    last_heartbeat_at: host.lastHeartbeatAt?.toISOString() ?? null,
    cert_expires_at: host.certExpiresAt?.toISOString() ?? null,
    clock_offset_ms: host.clockOffsetMs,
    ...{ running_capsules: load?.running ?? 0, sleeping_capsules: load?.asleep ?? 0 },
    ...{ reserved_vcpus: load?.vcpus ?? 0, reserved_memory_mb: load?.memoryMb ?? 0 },
    created_by: host.createdBy,
    created_at: host.createdAt.toISOString(),
    updated_at: host.updatedAt.toISOString(),
  };
}

/** Why a host that answers gets no new capsules although nobody keeps them off it. */
function problemOf({ problem, diskMb, diskFreeMb }: HostRow, minDiskFree: number): string | null {
  if (problem !== null || diskMb === null || diskFreeMb === null) return problem;
  if (diskFreeMb >= diskMb * minDiskFree) return null;
  return `its disk is nearly full: ${diskFreeMb} of ${diskMb} MiB are free`;
}
