import { newId } from '@wrenn/protocol/ids';
import { and, asc, count, eq, isNull, sql } from 'drizzle-orm';
import { type Channel, channels } from '../database/channel-schema.ts';
import type { Db } from '../database/database.ts';
import { requireLiveTeam } from '../teams/team-store.ts';

/** What makes names unique in a team. */
export const CHANNEL_NAME_INDEX = 'channels_name';

export type NewChannel = Pick<Channel, 'id' | 'teamId' | 'name' | 'provider' | 'config' | 'events' | 'createdBy'>;

export function newChannelId(): string {
  return newId('ch');
}

/** @throws WrennError `not_found` when the team is deleted */
export async function insertChannel(db: Db, channel: NewChannel): Promise<Channel> {
  await requireLiveTeam(db, channel.teamId);
  const [row] = await db.insert(channels).values(channel).returning();
  if (!row) throw new Error('INSERT gave no row');
  return row;
}

/** By name. */
export async function listChannels(db: Db, teamId: string): Promise<Channel[]> {
  return db.select().from(channels).where(eq(channels.teamId, teamId)).orderBy(asc(channels.name));
}

export async function countChannels(db: Db, teamId: string): Promise<number> {
  const [row] = await db.select({ channels: count() }).from(channels).where(eq(channels.teamId, teamId));
  return row?.channels ?? 0;
}

export async function findChannel(db: Db, teamId: string, id: string): Promise<Channel | undefined> {
  const [row] = await db
    .select()
    .from(channels)
    .where(and(eq(channels.teamId, teamId), eq(channels.id, id)));
  return row;
}

/** The same, and until the transaction ends nobody else changes it. */
export async function lockChannel(tx: Db, teamId: string, id: string): Promise<Channel | undefined> {
  const [row] = await tx
    .select()
    .from(channels)
    .where(and(eq(channels.teamId, teamId), eq(channels.id, id)))
    .for('no key update');
  return row;
}

export async function updateChannel(
  tx: Db,
  id: string,
  changes: Partial<Pick<Channel, 'name' | 'events' | 'config'>>,
): Promise<Channel> {
  const [row] = await tx
    .update(channels)
    .set({ ...changes, updatedAt: sql`now()` })
    .where(eq(channels.id, id))
    .returning();
  if (!row) throw new Error('UPDATE gave no row');
  return row;
}

export async function deleteChannelRow(tx: Db, id: string): Promise<void> {
  await tx.delete(channels).where(eq(channels.id, id));
}

/** @returns whether it was active until now */
export async function disableChannel(tx: Db, id: string, reason: string): Promise<boolean> {
  const { rowCount } = await tx
    .update(channels)
    .set({ disabledAt: sql`now()`, disabledReason: reason, heldUntil: null, updatedAt: sql`now()` })
    .where(and(eq(channels.id, id), isNull(channels.disabledAt)));
  return (rowCount ?? 0) > 0;
}

/** It is told again, and what went wrong before counts no more. */
export async function enableChannel(tx: Db, id: string): Promise<void> {
  await tx
    .update(channels)
    .set({ disabledAt: null, disabledReason: null, failingSince: null, heldUntil: null, updatedAt: sql`now()` })
    .where(eq(channels.id, id));
}

export async function holdChannel(tx: Db, id: string, holdMs: number): Promise<void> {
  await tx
    .update(channels)
    .set({ heldUntil: sql`now() + ${holdMs}::double precision * interval '1 millisecond'` })
    .where(eq(channels.id, id));
}

/** @returns since when it has been failing */
export async function markFailing(tx: Db, id: string, startedAt: Date): Promise<Date> {
  const [row] = await tx
    .update(channels)
    .set({ failingSince: sql`COALESCE(${channels.failingSince}, ${startedAt.toISOString()}::timestamptz)` })
    .where(eq(channels.id, id))
    .returning({ failingSince: channels.failingSince });
  return row?.failingSince ?? startedAt;
}

export async function markWorking(tx: Db, id: string): Promise<void> {
  await tx.update(channels).set({ failingSince: null, heldUntil: null }).where(eq(channels.id, id));
}
