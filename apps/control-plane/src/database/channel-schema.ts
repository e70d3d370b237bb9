import { CHANNEL_PROVIDERS, DELIVERY_STATUSES } from '@wrenn/protocol/rest/channels';
import { bigint, integer, jsonb, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';
import { ACTOR_TYPES } from './audit-schema.ts';
import { instant, instantMs } from './columns.ts';

export const channels = pgTable('channels', {
  id: text().primaryKey(),
  teamId: text('team_id').notNull(),
  /** Unique in its team. */
  name: text().notNull(),
  provider: text({ enum: CHANNEL_PROVIDERS }).notNull(),
  /** Each value encrypted by itself, by channels/config-secrets.ts. */
  config: jsonb().$type<Record<string, string>>().notNull(),
  events: text().array().notNull(),
  createdBy: text('created_by'),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
  /** Since then it is told nothing. */
  disabledAt: instant('disabled_at'),
  disabledReason: text('disabled_reason'),
  /** Start of the first of the failures that no success has come after. */
  failingSince: instant('failing_since'),
  /** Its provider asked for silence until then. */
  heldUntil: instant('held_until'),
  /** Whose deliveries go on, so that nobody else's do at the same time. */
  leasedBy: text('leased_by'),
  leasedUntil: instant('leased_until'),
});

export type Channel = typeof channels.$inferSelect;

/** What happened and some channel wanted to know. */
export const events = pgTable('events', {
  id: text().primaryKey(),
  type: text().notNull(),
  teamId: text('team_id').notNull(),
  actorType: text('actor_type', { enum: ACTOR_TYPES }).notNull(),
  actorId: text('actor_id'),
  actorName: text('actor_name').notNull(),
  resourceType: text('resource_type').notNull(),
  resourceId: text('resource_id').notNull(),
  data: jsonb().$type<Record<string, unknown>>().notNull().default({}),
  createdAt: instantMs('created_at').notNull(),
});

export type EventRow = typeof events.$inferSelect;

/** One event on its way to one channel. */
export const deliveries = pgTable('deliveries', {
  id: text().primaryKey(),
  /** Grows in the order in which they were written. */
  seq: bigint({ mode: 'number' }).notNull().generatedAlwaysAsIdentity(),
  channelId: text('channel_id').notNull(),
  eventId: text('event_id').notNull(),
  status: text({ enum: DELIVERY_STATUSES }).notNull(),
  /** All of them, of which each has a row in `delivery_attempts`. */
  attempts: integer().notNull().default(0),
  /** Failures that count for the back-off. */
  retries: integer().notNull().default(0),
  /** Null once it is not pending. */
  nextAttemptAt: instant('next_attempt_at'),
  giveUpAt: instant('give_up_at').notNull(),
  createdAt: instantMs('created_at').notNull(),
  finishedAt: instant('finished_at'),
});

export type Delivery = typeof deliveries.$inferSelect;

export const deliveryAttempts = pgTable(
  'delivery_attempts',
  {
    deliveryId: text('delivery_id').notNull(),
    number: integer().notNull(),
    startedAt: instant('started_at').notNull(),
    durationMs: integer('duration_ms').notNull(),
    statusCode: integer('status_code'),
    error: text(),
  },
  (table) => [primaryKey({ columns: [table.deliveryId, table.number] })],
);

export type DeliveryAttempt = typeof deliveryAttempts.$inferSelect;
