import { newId } from '@wrenn/protocol/ids';
import type { EventType } from '@wrenn/protocol/rest/channels';
import { and, eq, isNull, sql } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import { channels } from '../database/channel-schema.ts';
import type { Db } from '../database/database.ts';
import { announce } from '../shared/announce.ts';
import { boundData } from './bound-data.ts';

/** Channel on which the id of every channel is announced that has something new to be told. */
export const DELIVERY_CHANNEL = 'wrenn_delivery';
/** How long an event is worth telling. The last retry begins about a day after the first attempt. */
export const GIVE_UP_AFTER = sql.raw("interval '30 hours'");

/** Something that channels may tell of. */
export interface PublishedEvent {
  readonly type: EventType;
  readonly teamId: string;
  readonly actor: Actor;
  readonly resource: { readonly type: string; readonly id: string };
  /** Facts for whoever is told; never a secret. Long texts are cut. */
  readonly data?: Record<string, unknown>;
}

/** Of what a statement on a table with a column `team_id` sees: whether one of its team's channels wants the event. */
export function isWanted(teamId: unknown, type: EventType) {
  return sql`EXISTS (SELECT FROM ${channels} WHERE ${channels.teamId} = ${teamId}
    AND ${channels.disabledAt} IS NULL AND ${type} = ANY(${channels.events}))`;
}

/**
 * Puts an event down for the channels that want it, in the transaction of what it tells of: it is told exactly if that
 * is committed. Where no channel wants it, nothing is written.
 */
export async function publishEvent(db: Db, event: PublishedEvent): Promise<void> {
  const wanting = await db
    .select({ id: channels.id })
    .from(channels)
    .where(
      and(eq(channels.teamId, event.teamId), isNull(channels.disabledAt), sql`${event.type} = ANY(${channels.events})`),
    );
  if (wanting.length === 0) return;
  const told = wanting.map(({ id }) => ({ channel: id, delivery: newId('dlv') }));
  const { actor, resource } = event;
  // The lock: a channel that is deleted at the same moment must not fail the caller's transaction.
  const { rows } = await db.execute<{ channel_id: string }>(sql`
    WITH wanting AS MATERIALIZED (
      SELECT ${channels.id}, told.delivery
      FROM json_to_recordset(${JSON.stringify(told)}::json) AS told (channel text, delivery text)
      JOIN ${channels} ON ${channels.id} = told.channel
      ORDER BY ${channels.id}
      FOR KEY SHARE OF channels
    ), event AS (
      INSERT INTO events (id, type, team_id, actor_type, actor_id, actor_name, resource_type, resource_id, data)
      VALUES (${newId('evt')}, ${event.type}, ${event.teamId}, ${actor.type}, ${actor.id ?? null}, ${actor.name},
        ${resource.type}, ${resource.id}, ${JSON.stringify(boundData(event.data ?? {}))}::jsonb)
      RETURNING id
    ), made AS (
      INSERT INTO deliveries (id, channel_id, event_id, status, next_attempt_at, give_up_at)
      SELECT wanting.delivery, wanting.id, event.id, 'pending', now(), now() + ${GIVE_UP_AFTER} FROM wanting, event
      RETURNING channel_id
    )
    SELECT channel_id FROM made`);
  await announce(db, DELIVERY_CHANNEL, ...rows.map(({ channel_id }) => channel_id));
}
