import { WrennError } from '@wrenn/protocol/errors';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import type { Capsule } from '../database/schema.ts';
import type { GuestPool } from '../guest/guest-pool.ts';
import type { Host } from '../hosts/host.ts';
import type { OperationRunner } from '../operations/operation-runner.ts';
import { findCapsule } from './capsule-store.ts';
import type { Leftovers } from './leftovers.ts';
import { LostRaceError } from './transition.ts';

/** How long a start waits for a host that went away meanwhile, and comes back when its agent was restarted. */
export const HOST_RETURN_MS = 120_000;

export interface LifecycleDeps {
  readonly db: Db;
  readonly hostOf: (hostId: string) => Host;
  readonly guests: GuestPool;
  readonly leftovers: Leftovers;
  /** Known only after the handlers are: each handler may stop the others' work. */
  readonly runner: () => OperationRunner;
  readonly log: Logger;
}

/**
 * The capsule in the state that an operation put it into.
 *
 * @throws WrennError `invalid_state` when somebody took it out of there
 */
export async function requireIn(db: Db, id: string, status: Capsule['status']): Promise<Capsule> {
  const capsule = await findCapsule(db, id);
  if (capsule?.status === status) return capsule;
  throw capsule
    ? new WrennError('invalid_state', { id, status: capsule.status, needed: status })
    : new WrennError('capsule_not_found', { id });
}

/** Where a capsule is whose start failed, was cut short, or is not over. */
const UNSTARTED: readonly Capsule['status'][] = ['pending', 'starting', 'error', 'stopping', 'stopped'];

/** Whether a start was recorded, whatever became of it since: what its host has is the capsule's, and no leftover. */
export function hasStarted({ status, startedAt }: Pick<Capsule, 'status' | 'startedAt'>): boolean {
  return !UNSTARTED.includes(status) || (startedAt !== null && status !== 'starting');
}

/** What a person may read of an error. */
export function publicReason(error: unknown): string {
  return error instanceof WrennError ? error.message : new WrennError('internal_error').message;
}

/** Fails with the state that somebody else moved a capsule to. */
export async function refuseMoved(db: Db, id: string, expected: Capsule['status']): Promise<never> {
  await requireIn(db, id, expected);
  throw new LostRaceError(`capsule ${id} was moved, and is ${expected} again`);
}
