import type { Actor } from '../access/actor.ts';
import type { Db } from '../database/database.ts';
import type { Snapshot } from '../database/schema.ts';
import { publishEvent } from '../events/publish.ts';

/** Tells of a snapshot, in the transaction of what happened to it. */
export async function publishSnapshot(
  tx: Db,
  type: 'template.snapshot.created' | 'template.snapshot.deleted',
  { id, teamId, name, capsuleId }: Snapshot,
  actor: Actor,
): Promise<void> {
  const resource = { type: 'snapshot', id };
  await publishEvent(tx, { type, teamId, actor, resource, data: { name, capsule_id: capsuleId } });
}
