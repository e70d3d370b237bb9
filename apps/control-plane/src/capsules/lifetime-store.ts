import { and, eq, inArray, or, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type Capsule, capsules } from '../database/schema.ts';

/**
 * Records that capsules were used right now.
 *
 * @param touched used since the last call
 * @param open in use all the time; a row is written again only when a third of its timeout, or 15 s, has passed
 */
export async function recordActivity(db: Db, touched: readonly string[], open: readonly string[]): Promise<void> {
  if (touched.length === 0 && open.length === 0) return;
  const renewalSec = sql`CASE WHEN ${capsules.timeoutSec} > 0 THEN least(15, ${capsules.timeoutSec} / 3.0) ELSE 15 END`;
  const isOld = sql`${capsules.lastActiveAt} < now() - ${renewalSec} * interval '1 second'`;
  await db
    .update(capsules)
    .set({ lastActiveAt: sql`now()` })
    .where(or(inArray(capsules.id, [...touched]), and(inArray(capsules.id, [...open]), isOld)));
}

/** A running capsule that something will happen to soon. Times are from now by the database's clock; past: negative. */
export interface TimedCapsule {
  readonly capsule: Capsule;
  /** Until its idle timeout, as far as the database knows of its use; null: it has none. */
  readonly idleInMs: number | null;
  readonly deadlineInMs: number | null;
}

const idleAt = sql`CASE WHEN ${capsules.timeoutSec} > 0
  THEN ${capsules.lastActiveAt} + ${capsules.timeoutSec} * interval '1 second' END`;
const msFromNow = (instant: unknown) =>
  sql<number | null>`extract(epoch FROM ${instant} - now()) * 1000`.mapWith((ms) => (ms === null ? null : Number(ms)));

/** Running capsules whose idle timeout or deadline comes within a time. */
export async function listTimedCapsules(db: Db, withinMs: number): Promise<TimedCapsule[]> {
  const horizon = sql`now() + ${withinMs} * interval '1 millisecond'`;
  return db
    .select({ capsule: capsules, idleInMs: msFromNow(idleAt), deadlineInMs: msFromNow(capsules.deadlineAt) })
    .from(capsules)
    .where(
      and(eq(capsules.status, 'running'), or(sql`${idleAt} <= ${horizon}`, sql`${capsules.deadlineAt} <= ${horizon}`)),
    );
}

/** Whether a running capsule whose deadline had come is to be ended still, and in the same way. */
export async function isDeadlineOver(db: Db, seen: Capsule, now: Capsule): Promise<boolean> {
  if (now.version !== seen.version || now.onTimeout !== seen.onTimeout) return false;
  // In a transaction now() is its begin.
  const isOver = sql`${capsules.deadlineAt} <= clock_timestamp()`;
  return (await db.$count(capsules, and(eq(capsules.id, now.id), isOver))) > 0;
}

/** Settings of a capsule as PATCH changes them; what is undefined stays. */
export interface LifetimeChanges {
  readonly timeoutSec?: number | undefined;
  readonly onTimeout?: Capsule['onTimeout'] | undefined;
  readonly autoResume?: boolean | undefined;
  /** From now; null takes the deadline away. */
  readonly deadlineSec?: number | null | undefined;
  readonly labels?: Record<string, string> | undefined;
}

/** @returns undefined when the capsule has ended meanwhile: then nothing was changed */
export async function changeLifetime(db: Db, id: string, changes: LifetimeChanges): Promise<Capsule | undefined> {
  const { timeoutSec, onTimeout, autoResume, deadlineSec, labels } = changes;
  const deadlineAt = deadlineSec === null ? null : sql`now() + ${deadlineSec} * interval '1 second'`;
  const [row] = await db
    .update(capsules)
    .set({
      ...(timeoutSec === undefined ? {} : { timeoutSec }),
      ...(onTimeout === undefined ? {} : { onTimeout }),
      ...(autoResume === undefined ? {} : { autoResume }),
      ...(deadlineSec === undefined ? {} : { deadlineAt }),
      ...(labels === undefined ? {} : { labels }),
      updatedAt: sql`now()`,
    })
    .where(and(eq(capsules.id, id), sql`NOT ${hasEnded}`))
    .returning();
  return row;
}

/** A failed capsule that has slept can be resumed from that; every other failed one is at its end. */
const hasEnded = sql`(${capsules.status} IN ('stopping', 'stopped')
  OR (${capsules.status} = 'error' AND ${capsules.generation} = 0))`;
