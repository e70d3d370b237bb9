import { bigint, integer, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';
import { instant } from './columns.ts';

/** Requests with an Idempotency-Key, and their answers. */
export const idempotentRequests = pgTable(
  'idempotent_requests',
  {
    /** Who sent it. */
    owner: text().notNull(),
    /** operationId of the route. */
    operation: text().notNull(),
    key: text().notNull(),
    /** HMAC-SHA-256 in hex: the request may hold a password. */
    requestHash: text('request_hash').notNull(),
    /** The control plane that serves it: the number whose advisory lock that one holds as long as it lives. */
    runner: bigint({ mode: 'number' }).notNull(),
    /** HTTP status of the answer. Null as long as the request is served. */
    status: integer(),
    /** Headers and body, encrypted: they may hold a secret. Null where they were too large to keep. */
    answer: text(),
    createdAt: instant('created_at').notNull().defaultNow(),
    finishedAt: instant('finished_at'),
  },
  (table) => [primaryKey({ columns: [table.owner, table.operation, table.key] })],
);
