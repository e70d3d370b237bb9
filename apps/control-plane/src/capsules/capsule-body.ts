import type { CapsuleBody } from '@wrenn/protocol/rest/capsule';
import type { Capsule } from '../database/schema.ts';

/** The capsule as the API shows it. */
export function toCapsuleBody(capsule: Capsule): CapsuleBody {
  return {
    id: capsule.id,
    status: capsule.status,
    status_reason: capsule.statusReason,
    template: capsule.template,
    vcpus: capsule.vcpus,
    memory_mb: capsule.memoryMb,
    disk_mb: capsule.diskMb,
    timeout_sec: capsule.timeoutSec,
    guest_ip: capsule.guestIp,
    host_ip: capsule.hostIp,
    created_at: capsule.createdAt.toISOString(),
    started_at: capsule.startedAt?.toISOString() ?? null,
    last_active_at: capsule.lastActiveAt?.toISOString() ?? null,
    last_updated: capsule.updatedAt.toISOString(),
    metadata: { ...capsule.labels, ...capsule.versions },
  };
}
