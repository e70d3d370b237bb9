import { and, gt, ne, or } from 'drizzle-orm';
import { recordCapsuleNews } from '../audit/operation-entries.ts';
import type { Db } from '../database/database.ts';
import { type Capsule, capsules } from '../database/schema.ts';
import { doomObjects } from './leftovers.ts';
import { transition } from './transition.ts';

/** Capsules that end with their host: those in the object store are on none, and an error that never slept is nothing. */
export const endsWithHost = and(
  ne(capsules.status, 'stopped'),
  ne(capsules.status, 'hibernated'),
  or(ne(capsules.status, 'error'), gt(capsules.generation, 0)),
);

/**
 * Ends a capsule whose host is deleted: nobody will ever say what became of its microVM.
 *
 * @throws LostRaceError when it was moved since it was seen
 */
export async function endWithoutHost(tx: Db, seen: Capsule): Promise<void> {
  const { status, objectKey } = seen;
  const stopping = status === 'stopping' ? seen : await transition(tx, seen, 'stopping');
  const statusReason = 'its host was deleted';
  const ended = await transition(tx, stopping, 'stopped', { statusReason, hostIp: null, objectKey: null });
  await doomObjects(tx, objectKey === null ? [] : [objectKey]);
  await recordCapsuleNews(tx, status, ended);
}
