import { AUDIT_SCOPES, AUDIT_STATUSES } from '@wrenn/protocol/rest/audit';
import { sql } from 'drizzle-orm';
import { jsonb, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';
import { instantMs, transactionId } from './columns.ts';

export const ACTOR_TYPES = ['user', 'api_key', 'system'] as const;

/** Partitioned by month. */
export const auditLog = pgTable(
  'audit_log',
  {
    id: text().notNull(),
    /** Null: of no team, such as a failed login. */
    teamId: text('team_id'),
    actorType: text('actor_type', { enum: ACTOR_TYPES }).notNull(),
    actorId: text('actor_id'),
    /** As it was then. */
    actorName: text('actor_name').notNull(),
    /** IP address of the client. */
    address: text(),
    resourceType: text('resource_type').notNull(),
    resourceId: text('resource_id'),
    action: text().notNull(),
    scope: text({ enum: AUDIT_SCOPES }).notNull(),
    status: text({ enum: AUDIT_STATUSES }).notNull(),
    metadata: jsonb().$type<Record<string, unknown>>().notNull().default({}),
    requestId: text('request_id'),
    createdAt: instantMs('created_at').notNull(),
    /** Entries become visible in no other order that everybody agrees on; see audit/audit-store.ts. */
    writtenIn: transactionId('written_in').notNull().default(sql`pg_current_xact_id()`),
  },
  (table) => [primaryKey({ columns: [table.createdAt, table.id] })],
);

export type AuditRow = typeof auditLog.$inferSelect;
