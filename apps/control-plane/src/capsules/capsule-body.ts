import type { CapsuleBody } from '@wrenn/protocol/rest/capsule';
import type { ListedCapsule } from './capsule-list.ts';

/** The capsule as the API shows it; with `trace`, the timeline of its last start too. */
export function toCapsuleBody(capsule: ListedCapsule, { trace = false }: { trace?: boolean } = {}): CapsuleBody {
  return {
    id: capsule.id,
    status: capsule.status,
    status_reason: capsule.statusReason,
    template: capsule.template,
    vcpus: capsule.vcpus,
    memory_mb: capsule.memoryMb,
    disk_mb: capsule.diskMb,
    timeout_sec: capsule.timeoutSec,
    on_timeout: capsule.onTimeout,
    auto_resume: capsule.autoResume,
    deadline_at: capsule.deadlineAt?.toISOString() ?? null,
    generation: capsule.generation,
    slept_at: capsule.sleptAt?.toISOString() ?? null,
    snapshot_bytes: capsule.snapshotBytes,
    snapshot_problem: capsule.snapshotProblem,
    memory: capsule.memoryDiscarded ? 'discarded' : 'kept',
    forked_from: capsule.forkedFrom,
    snapshot_id: capsule.snapshotId,
    guest_ip: capsule.guestIp,
    host_ip: capsule.hostIp,
    created_at: capsule.createdAt.toISOString(),
    started_at: capsule.startedAt?.toISOString() ?? null,
    last_active_at: capsule.lastActiveAt?.toISOString() ?? null,
    last_updated: capsule.updatedAt.toISOString(),
    metadata: { ...capsule.labels, ...capsule.versions },
    ...(trace ? { trace: capsule.trace } : {}),
  };
}
