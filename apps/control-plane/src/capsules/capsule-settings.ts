import { WrennError } from '@wrenn/protocol/errors';
import type { UpdateCapsuleRequest } from '@wrenn/protocol/rest/capsule';
import { SYSTEM } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import type { Capsule } from '../database/schema.ts';
import { type Caller, requireCapsule } from './capsules.ts';
import { changeLifetime } from './lifetime-store.ts';
import type { LifetimeWatch } from './lifetime-watch.ts';

export interface CapsuleSettingsDeps {
  readonly db: Db;
  readonly lifetimes: LifetimeWatch;
}

/**
 * Changes when a capsule goes to sleep and what it is labelled with. It is no use of the capsule: one that has been idle
 * for longer than its new timeout is idle at once.
 *
 * @throws WrennError `capsule_not_found`, `invalid_state` when it has ended
 */
export async function changeCapsuleSettings(
  { db, lifetimes }: CapsuleSettingsDeps,
  caller: Caller,
  id: string,
  request: UpdateCapsuleRequest,
): Promise<Capsule> {
  const seen = await requireCapsule(db, caller.teamId, id);
  const changed = await db.transaction(async (tx) => {
    const row = await changeLifetime(tx, id, {
      timeoutSec: request.timeout_sec,
      onTimeout: request.on_timeout,
      autoResume: request.auto_resume,
      deadlineSec: request.deadline_sec,
      labels: request.metadata,
    });
    if (row) await recordUpdate(tx, caller, id, request);
    return row;
  });
  if (!changed) {
    const { status } = await requireCapsule(db, caller.teamId, id);
    throw new WrennError('invalid_state', { id: seen.id, status, needed: 'a state that has not ended' });
  }
  lifetimes.wake(id);
  return changed;
}

/** Labels are the caller's own, and may say anything. */
async function recordUpdate(tx: Db, caller: Caller, id: string, request: UpdateCapsuleRequest): Promise<void> {
  const { metadata: labels, ...times } = request;
  await recordAudit(tx, {
    teamId: caller.teamId,
    actor: caller.askedBy ?? SYSTEM,
    resourceType: 'capsule',
    resourceId: id,
    action: 'update',
    scope: 'team',
    status: 'success',
    metadata: { ...times, ...(labels ? { labels: Object.keys(labels).length } : {}) },
  });
}
