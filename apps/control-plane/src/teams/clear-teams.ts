import { and, eq, inArray, isNotNull, ne, notExists, sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import { type CapsulesDeps, destroyAsSystem } from '../capsules/capsules.ts';
import { channels, deliveries } from '../database/channel-schema.ts';
import type { Db } from '../database/database.ts';
import { teams } from '../database/people-schema.ts';
import { capsules, snapshots } from '../database/schema.ts';
import type { Jobs } from '../jobs/jobs.ts';
import { markDeleting } from '../snapshots/snapshot-store.ts';

export const CLEAR_TEAMS_QUEUE = 'clear-teams';
/** What a round leaves, because its end failed or a control plane died, the next one finds. */
const CLEAR_TEAMS_CRON = '*/10 * * * *';
const CLEAR_TEAMS_MS = 120_000;

/** Has what deleted teams left ended, by whichever control plane is there. */
export function defineClearTeams(jobs: Jobs, capsuleDeps: CapsulesDeps, log: Logger): void {
  jobs.define(
    CLEAR_TEAMS_QUEUE,
    { deadlineMs: CLEAR_TEAMS_MS, retry: { limit: 10, delayMs: 1000, maxDelayMs: 60_000 } },
    async (_data, signal) => {
      const cleared = await clearTeams(capsuleDeps, signal);
      if (cleared.capsules + cleared.snapshots > 0) log.info(cleared, 'cleared what deleted teams had');
    },
  );
  jobs.schedule(CLEAR_TEAMS_QUEUE, CLEAR_TEAMS_CRON);
}

/**
 * Begins to end every capsule and snapshot of every deleted team, in whatever state. Each end is an operation, or a row
 * that the removal of leftovers finds, which survive a crash by themselves.
 *
 * @returns how many were found
 */
export async function clearTeams(
  deps: CapsulesDeps,
  signal: AbortSignal,
): Promise<{ capsules: number; snapshots: number }> {
  const { db, leftovers } = deps;
  const kept = await db
    .select({ id: snapshots.id })
    .from(snapshots)
    .innerJoin(teams, and(eq(teams.id, snapshots.teamId), isNotNull(teams.deletedAt)))
    .where(ne(snapshots.status, 'deleting'));
  for (const { id } of kept) {
    signal.throwIfAborted();
    await markDeleting(db, id);
  }
  const living = await db
    .select({ id: capsules.id })
    .from(capsules)
    .innerJoin(teams, and(eq(teams.id, capsules.teamId), isNotNull(teams.deletedAt)))
    .where(ne(capsules.status, 'stopped'));
  for (const capsule of living) {
    signal.throwIfAborted();
    await destroyAsSystem(deps, capsule);
  }
  if (kept.length > 0) leftovers.nudge();
  await removeChannels(db);
  return { capsules: living.length, snapshots: kept.length };
}

/** Channels of deleted teams, once they have been told of the deletion or cannot be. */
async function removeChannels(db: Db): Promise<void> {
  const deleted = db.select({ id: teams.id }).from(teams).where(isNotNull(teams.deletedAt));
  const waiting = db
    .select({ one: sql`1` })
    .from(deliveries)
    .where(and(eq(deliveries.channelId, channels.id), eq(deliveries.status, 'pending')));
  await db.delete(channels).where(and(inArray(channels.teamId, deleted), notExists(waiting)));
}
