import { newId } from '@wrenn/protocol/ids';
import { and, asc, desc, eq, inArray, isNull, lt, lte, sql } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import {
  type Channel,
  channels,
  type Delivery,
  type DeliveryAttempt,
  deliveries,
  deliveryAttempts,
  type EventRow,
  events,
} from '../database/channel-schema.ts';
import type { Db } from '../database/database.ts';
import { DELIVERY_CHANNEL, GIVE_UP_AFTER } from '../events/publish.ts';
import { announce } from '../shared/announce.ts';

/** A delivery with what it tells. */
export interface Due {
  readonly delivery: Delivery;
  readonly event: EventRow;
}

const isDue = and(eq(deliveries.status, 'pending'), lte(deliveries.nextAttemptAt, sql`now()`));
const maySpeak = and(
  isNull(channels.disabledAt),
  sql`(${channels.heldUntil} IS NULL OR ${channels.heldUntil} <= now())`,
);
/** Nobody else works for it. What the holder itself has in hand, it knows. */
const isFreeFor = (holder: string) =>
  sql`(${channels.leasedUntil} IS NULL OR ${channels.leasedUntil} < now() OR ${channels.leasedBy} = ${holder})`;
const inMs = (ms: number) => sql`now() + ${ms}::double precision * interval '1 millisecond'`;

/** Takes a channel that has something to be told for itself. @returns whether the caller got it */
export async function leaseChannel(db: Db, id: string, holder: string, leaseMs: number): Promise<boolean> {
  const hasDue = sql`EXISTS (SELECT FROM ${deliveries} WHERE ${deliveries.channelId} = ${channels.id} AND ${isDue})`;
  const { rowCount } = await db
    .update(channels)
    .set({ leasedBy: holder, leasedUntil: inMs(leaseMs) })
    .where(and(eq(channels.id, id), maySpeak, isFreeFor(holder), hasDue));
  return (rowCount ?? 0) > 0;
}

/** @returns the channel as it is now; undefined when it is the caller's no more, or must not be told anything now */
export async function renewLease(db: Db, id: string, holder: string, leaseMs: number): Promise<Channel | undefined> {
  const [channel] = await db
    .update(channels)
    .set({ leasedUntil: inMs(leaseMs) })
    .where(and(eq(channels.id, id), eq(channels.leasedBy, holder), maySpeak))
    .returning();
  return channel;
}

export async function releaseLease(db: Db, id: string, holder: string): Promise<void> {
  await db
    .update(channels)
    .set({ leasedBy: null, leasedUntil: null })
    .where(and(eq(channels.id, id), eq(channels.leasedBy, holder)));
}

/** The oldest that is due. */
export async function findDue(db: Db, channelId: string): Promise<Due | undefined> {
  const [found] = await db
    .select({ delivery: deliveries, event: events })
    .from(deliveries)
    .innerJoin(events, eq(events.id, deliveries.eventId))
    .where(and(eq(deliveries.channelId, channelId), isDue))
    .orderBy(asc(deliveries.seq))
    .limit(1);
  return found;
}

/** Ids of channels that something is due for, and that nobody else works for. */
export async function listNeglected(db: Db, holder: string): Promise<string[]> {
  const due = db.select({ id: deliveries.channelId }).from(deliveries).where(isDue);
  const rows = await db
    .select({ id: channels.id })
    .from(channels)
    .where(and(maySpeak, isFreeFor(holder), inArray(channels.id, due)));
  return rows.map(({ id }) => id);
}

/** In how many milliseconds the next delivery is due that is not yet; undefined: there is none. */
export async function nextDueInMs(db: Db): Promise<number | undefined> {
  const { rows } = await db.execute<{ ms: number | null }>(sql`
    SELECT (extract(epoch FROM min(next_attempt_at) - now()) * 1000)::double precision AS ms
    FROM deliveries WHERE status = 'pending' AND next_attempt_at > now()`);
  return rows[0]?.ms ?? undefined;
}

export interface AttemptRow {
  readonly startedAt: Date;
  readonly durationMs: number;
  readonly statusCode?: number | undefined;
  readonly error?: string | undefined;
}

/** @returns false when somebody else recorded an attempt of it meanwhile, and then nothing is written */
export async function recordDeliveryAttempt(
  tx: Db,
  seen: Pick<Delivery, 'id' | 'attempts'>,
  { startedAt, durationMs, statusCode, error }: AttemptRow,
  next: { status: 'delivered' | 'failed' } | { retryInMs: number; counts: boolean },
): Promise<boolean> {
  const number = seen.attempts + 1;
  const { rowCount } = await tx
    .update(deliveries)
    .set(
      'status' in next
        ? { attempts: number, status: next.status, nextAttemptAt: null, finishedAt: sql`now()` }
        : {
            attempts: number,
            nextAttemptAt: inMs(next.retryInMs),
            ...(next.counts ? { retries: sql`${deliveries.retries} + 1` } : {}),
          },
    )
    .where(and(eq(deliveries.id, seen.id), eq(deliveries.attempts, seen.attempts), eq(deliveries.status, 'pending')));
  if (!rowCount) return false;
  const row = { startedAt, durationMs, statusCode: statusCode ?? null, error: error ?? null };
  await tx.insert(deliveryAttempts).values({ deliveryId: seen.id, number, ...row });
  return true;
}

/** Ends every delivery that is not worth its repeat any more. */
export async function giveUpOld(db: Db): Promise<void> {
  await db
    .update(deliveries)
    .set({ status: 'failed', nextAttemptAt: null, finishedAt: sql`now()` })
    .where(and(eq(deliveries.status, 'pending'), lt(deliveries.giveUpAt, sql`now()`)));
}

/** Ends all that a channel has still to be told. */
export async function giveUpAll(tx: Db, channelId: string): Promise<void> {
  await tx
    .update(deliveries)
    .set({ status: 'failed', nextAttemptAt: null, finishedAt: sql`now()` })
    .where(and(eq(deliveries.channelId, channelId), eq(deliveries.status, 'pending')));
}

/** Begins a delivery anew, under its id. @returns undefined when the channel has no such delivery */
export async function renewDelivery(tx: Db, channelId: string, id: string): Promise<Delivery | undefined> {
  const [renewed] = await tx
    .update(deliveries)
    .set({
      ...{ status: 'pending', retries: 0, finishedAt: null },
      nextAttemptAt: sql`now()`,
      giveUpAt: sql`now() + ${GIVE_UP_AFTER}`,
    })
    .where(and(eq(deliveries.id, id), eq(deliveries.channelId, channelId)))
    .returning();
  if (renewed) await announce(tx, DELIVERY_CHANNEL, channelId);
  return renewed;
}

/** Writes down a delivery that has been tried already and is not repeated. */
export async function insertTried(
  tx: Db,
  channelId: string,
  { event, deliveryId }: { event: EventRow; deliveryId: string },
  tried: AttemptRow,
): Promise<void> {
  await tx.insert(events).values(event);
  const status = tried.error === undefined ? ('delivered' as const) : ('failed' as const);
  await tx.insert(deliveries).values({
    ...{ id: deliveryId, channelId, eventId: event.id, status, attempts: 1 },
    giveUpAt: sql`now()`,
    createdAt: sql`clock_timestamp()`,
    finishedAt: sql`now()`,
  });
  const { startedAt, durationMs, statusCode = null, error = null } = tried;
  await tx.insert(deliveryAttempts).values({ deliveryId, number: 1, startedAt, durationMs, statusCode, error });
}

/** A delivery as it is shown. */
export interface LoggedDelivery extends Due {
  readonly attempts: readonly DeliveryAttempt[];
}

/** Newest first. @param before `seq` of the last one of the page before */
export async function listDeliveries(
  db: Db,
  channelId: string,
  { limit, before, id }: { limit: number; before?: number | undefined; id?: string },
): Promise<LoggedDelivery[]> {
  const found = await db
    .select({ delivery: deliveries, event: events })
    .from(deliveries)
    .innerJoin(events, eq(events.id, deliveries.eventId))
    .where(
      and(
        eq(deliveries.channelId, channelId),
        before === undefined ? undefined : lt(deliveries.seq, before),
        id === undefined ? undefined : eq(deliveries.id, id),
      ),
    )
    .orderBy(desc(deliveries.seq))
    .limit(limit);
  const ids = found.map(({ delivery }) => delivery.id);
  const attempts = await db
    .select()
    .from(deliveryAttempts)
    .where(inArray(deliveryAttempts.deliveryId, ids))
    .orderBy(asc(deliveryAttempts.number));
  return found.map((each) => ({
    ...each,
    attempts: attempts.filter(({ deliveryId }) => deliveryId === each.delivery.id),
  }));
}

/** Removes what happened before that, and with it its deliveries. @returns how many events */
export async function deleteEventsBefore(db: Db, instant: Date): Promise<number> {
  const { rowCount } = await db.delete(events).where(lt(events.createdAt, instant));
  return rowCount ?? 0;
}

/** What a test tells. */
export function newTestEvent({ id, teamId }: Pick<Channel, 'id' | 'teamId'>, actor: Actor): EventRow {
  return {
    ...{ id: newId('evt'), type: 'channel.test', teamId, resourceType: 'channel', resourceId: id, data: {} },
    ...{ actorType: actor.type, actorId: actor.id ?? null, actorName: actor.name, createdAt: new Date() },
  };
}
