import { WrennError } from '@wrenn/protocol/errors';
import type { CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import type { EventType } from '@wrenn/protocol/rest/channels';
import { and, eq, not, type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type Capsule, capsules } from '../database/schema.ts';
import { isWanted } from '../events/publish.ts';
import { eventOfMove, publishMove } from './capsule-events.ts';

/** Where each state may go, besides `stopping` and `error`, which every living state may go to. */
const NEXT: Readonly<Record<CapsuleStatus, readonly CapsuleStatus[]>> = {
  pending: ['starting'],
  starting: ['running'],
  // To `paused` by itself only when its host says so.
  running: ['pausing', 'forking', 'missing', 'paused'],
  pausing: ['paused', 'running'],
  paused: ['resuming', 'hibernating', 'running'],
  hibernating: ['hibernated', 'paused'],
  hibernated: ['resuming', 'running'],
  resuming: ['running', 'paused', 'hibernated'],
  forking: ['running', 'paused'],
  missing: ['running', 'paused'],
  stopping: ['stopped'],
  // One that has slept goes on from its last generation; one that its host had lost comes back.
  error: ['resuming', 'paused', 'running'],
  stopped: [],
};

/** Whether the state machine allows this move. */
export function isLegalMove(from: CapsuleStatus, to: CapsuleStatus): boolean {
  if (from === 'stopped' || from === to) return false;
  if (to === 'stopping') return true;
  // A capsule that is being ended ends; that it fails meanwhile changes nothing.
  if (to === 'error') return from !== 'stopping';
  return NEXT[from].includes(to);
}

/** States in which a deadline ends nothing; one that passed meanwhile is over, or waking up would end at once. */
const ASLEEP: readonly CapsuleStatus[] = ['paused', 'hibernated', 'error'];
const comingDeadline = sql`CASE WHEN ${capsules.deadlineAt} > now() THEN ${capsules.deadlineAt} END`;

/** What may be written together with a move. */
export type TransitionChanges = Partial<
  Pick<
    Capsule,
    | 'statusReason'
    | 'versions'
    | 'guestIp'
    | 'hostIp'
    | 'hostId'
    | 'diskMb'
    | 'startedAt'
    | 'lastActiveAt'
    | 'consoleTail'
    | 'generation'
    | 'sleptAt'
    | 'snapshotBytes'
    | 'snapshotProblem'
    | 'objectKey'
    | 'memoryDiscarded'
  >
>;

/** A capsule as the caller knows it. */
type Seen = Pick<Capsule, 'id' | 'status' | 'version'>;

/** The capsule is no longer as the caller saw it: somebody else moved it first. */
export class LostRaceError extends Error {
  override readonly name = 'LostRaceError';
}

/**
 * Moves a capsule from the state that the caller saw to another, if it still is in that state and version. Nothing
 * else writes `status`. The reason of the earlier state goes unless `changes` gives a new one. Channels that want to know
 * are told in the same transaction.
 *
 * @throws WrennError `invalid_state` for a move that the state machine does not have
 * @throws LostRaceError when the capsule was moved since
 */
export async function transition(
  db: Db,
  seen: Seen,
  to: CapsuleStatus,
  changes: TransitionChanges = {},
): Promise<Capsule> {
  if (!isLegalMove(seen.status, to)) {
    throw new WrennError('invalid_state', { id: seen.id, status: seen.status, needed: statesBefore(to).join(' or ') });
  }
  const type = eventOfMove(seen.status, to);
  // Most teams want no word of it, and then this one statement is all.
  const unwanted = type && not(isWanted(capsules.teamId, type));
  const moved =
    (await move(db, seen, to, changes, unwanted)) ?? (type && (await moveAloud(db, seen, to, changes, type)));
  if (!moved) throw new LostRaceError(`capsule ${seen.id} is no longer ${seen.status} in version ${seen.version}`);
  return moved;
}

/** The same for a move that channels are told of. */
function moveAloud(
  db: Db,
  seen: Seen,
  to: CapsuleStatus,
  changes: TransitionChanges,
  type: EventType,
): Promise<Capsule | undefined> {
  return db.transaction(async (tx) => {
    const moved = await move(tx, seen, to, changes);
    if (moved) await publishMove(tx, type, seen.status, moved);
    return moved;
  });
}

async function move(
  db: Db,
  seen: Seen,
  to: CapsuleStatus,
  changes: TransitionChanges,
  condition?: SQL,
): Promise<Capsule | undefined> {
  const isAsSeen = and(eq(capsules.id, seen.id), eq(capsules.status, seen.status), eq(capsules.version, seen.version));
  const [moved] = await db
    .update(capsules)
    .set({
      statusReason: null,
      ...changes,
      ...(ASLEEP.includes(seen.status) ? { deadlineAt: comingDeadline } : {}),
      status: to,
      version: sql`${capsules.version} + 1`,
      updatedAt: sql`now()`,
    })
    .where(and(isAsSeen, condition))
    .returning();
  return moved;
}

/**
 * Moves a capsule from whatever state it is in, as long as `when` takes that state. Reads again when somebody else was
 * quicker.
 *
 * @returns the capsule after the move, or undefined when it is gone or `when` refuses
 */
export async function transitionWhen(
  db: Db,
  id: string,
  when: (capsule: Capsule) => boolean,
  to: CapsuleStatus,
  changes: TransitionChanges | ((seen: Capsule) => TransitionChanges) = {},
): Promise<Capsule | undefined> {
  for (;;) {
    const [seen] = await db.select().from(capsules).where(eq(capsules.id, id));
    if (!seen || !when(seen)) return undefined;
    try {
      return await transition(db, seen, to, typeof changes === 'function' ? changes(seen) : changes);
    } catch (error) {
      if (!(error instanceof LostRaceError)) throw error;
    }
  }
}

function statesBefore(to: CapsuleStatus): CapsuleStatus[] {
  return (Object.keys(NEXT) as CapsuleStatus[]).filter((from) => isLegalMove(from, to));
}
