import type { SnapshotBody } from '@wrenn/protocol/rest/sleep';
import type { Snapshot } from '../database/schema.ts';
import { PLATFORM_TEAM_ID } from '../teams/platform-team.ts';
import type { PlatformTemplate } from './snapshots.ts';

export function toSnapshotBody(snapshot: Snapshot): SnapshotBody {
  const isPlatforms = snapshot.teamId === PLATFORM_TEAM_ID;
  return {
    id: snapshot.id,
    name: snapshot.name,
    type: 'snapshot',
    template: snapshot.template,
    capsule_id: isPlatforms ? null : snapshot.capsuleId,
    vcpus: snapshot.vcpus,
    memory_mb: snapshot.memoryMb,
    disk_mb: snapshot.diskMb,
    size_bytes: snapshot.sizeBytes,
    created_at: snapshot.createdAt.toISOString(),
    platform: isPlatforms,
    metadata: {},
  };
}

export function toTemplateBody({ name, envdVersion }: PlatformTemplate): SnapshotBody {
  return {
    id: null,
    name,
    type: 'base',
    template: name,
    capsule_id: null,
    vcpus: null,
    memory_mb: null,
    disk_mb: null,
    size_bytes: null,
    created_at: null,
    platform: true,
    metadata: { envd_version: envdVersion },
  };
}
