import { type SQL, sql } from 'drizzle-orm';
import { hasRoom, roomFor } from './host-room.ts';
import type { Needs, SnapshotPlace } from './needs.ts';
import type { PlacementSettings } from './placement-settings.ts';

/**
 * What a host `h` with room `r` must be for a capsule, from what lies least in the hands of whoever asks to what does
 * most: of the first that no host passes people are told.
 */
export interface HostFilters {
  readonly online: SQL;
  readonly own: SQL;
  readonly source: SQL;
  readonly template: SQL;
  readonly shape: SQL;
  readonly tags: SQL;
  readonly store: SQL;
  readonly machine: SQL;
  readonly cordon: SQL;
  readonly disk: SQL;
  readonly room: SQL;
}

/** Whether a host has what the capsule is made of, and need not fetch it. */
export function isHere({ template, snapshot }: Needs): SQL {
  if (snapshot) return sql`(h.id = ANY (${sql.param([snapshot.hostId, ...snapshot.copies])}::text[]))`;
  return template === undefined ? sql`true` : sql`(${template} = ANY (h.templates))`;
}

/** Whether memory that was saved there can go on here. */
function isMachineLike(hostId: string): SQL {
  return sql`((h.arch, h.hypervisor, h.hypervisor_version, h.accelerator, h.cpu) IS NOT DISTINCT FROM
    (SELECT (arch, hypervisor, hypervisor_version, accelerator, cpu) FROM hosts WHERE id = ${hostId}))`;
}

/** Through the object store, where it is or where the host that made it puts it. */
function canFetchSnapshot({ hostId, objectKey }: SnapshotPlace): SQL {
  const isStored = objectKey === null ? sql`status IN ('online', 'draining') AND deleted_at IS NULL` : sql`true`;
  return sql`(coalesce(h.object_store = (SELECT object_store FROM hosts WHERE id = ${hostId} AND ${isStored}), false)
    AND ${isMachineLike(hostId)})`;
}

/** The same of a template: of the platform's hosts, or of the team's own. */
function canFetchTemplate(name: string, teamId: string): SQL {
  const isOurs = sql`(team_id IS NULL OR team_id = (SELECT id FROM teams WHERE id = ${teamId} AND is_byoc))`;
  // In an array, so that it is looked up once and not for each host.
  return sql`(coalesce(h.object_store || ' ' || h.arch = ANY (ARRAY(
    SELECT object_store || ' ' || arch FROM published_templates WHERE name = ${name} AND ${isOurs}
    UNION SELECT object_store || ' ' || arch FROM hosts WHERE ${name} = ANY (templates) AND status = 'online'
      AND deleted_at IS NULL AND object_store IS NOT NULL AND ${isOurs})), false))`;
}

export function hostFilters(settings: PlacementSettings, needs: Needs): HostFilters {
  const { teamId, vcpus, memoryMb, template, hostTags = [], snapshot, likeHostId } = needs;
  const tags = sql.param([...new Set(hostTags)]);
  return {
    online: sql`(h.status IN ('online', 'draining') AND h.deleted_at IS NULL AND h.memory_mb IS NOT NULL)`,
    // A team with hosts of its own never gets others, and nobody else gets its hosts.
    own: sql`(CASE WHEN (SELECT is_byoc FROM teams WHERE id = ${teamId})
      THEN h.type = 'byoc' AND h.team_id = ${teamId} ELSE h.type = 'regular' END)`,
    source: snapshot === undefined ? sql`true` : sql`(${isHere(needs)} OR ${canFetchSnapshot(snapshot)})`,
    template: template === undefined ? sql`true` : sql`(${isHere(needs)} OR ${canFetchTemplate(template, teamId)})`,
    shape: sql`(h.cpu_count >= ${vcpus} AND h.memory_mb >= ${memoryMb})`,
    tags:
      hostTags.length === 0
        ? sql`true`
        : sql`((SELECT array_agg(tag) FROM host_tags WHERE host_id = h.id) @> ${tags}::text[])`,
    store:
      likeHostId === undefined
        ? sql`true`
        : sql`(h.object_store IS NOT DISTINCT FROM (SELECT object_store FROM hosts WHERE id = ${likeHostId}))`,
    machine: likeHostId === undefined ? sql`true` : isMachineLike(likeHostId),
    cordon: sql`(h.status = 'online' AND h.cordoned_at IS NULL)`,
    disk: sql`(coalesce(h.disk_free_mb >= h.disk_mb * ${settings.minDiskFree}::float8, true))`,
    room: hasRoom(roomFor(needs)),
  };
}
