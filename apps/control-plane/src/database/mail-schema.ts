import { integer, pgTable, text } from 'drizzle-orm/pg-core';
import { instant, instantMs } from './columns.ts';

/** held: no mail server is set up, so an administrator passes the link on. */
export const MAIL_STATUSES = ['queued', 'sent', 'held', 'failed'] as const;

export const mails = pgTable('mails', {
  id: text().primaryKey(),
  toAddress: text('to_address').notNull(),
  kind: text().notNull(),
  subject: text().notNull(),
  /** Encrypted; empty once it was sent or its link expired. */
  body: text().notNull(),
  status: text({ enum: MAIL_STATUSES }).notNull(),
  attempts: integer().notNull().default(0),
  error: text(),
  createdAt: instantMs('created_at').notNull(),
  /** When its link stops to work. */
  expiresAt: instant('expires_at'),
  sentAt: instant('sent_at'),
});

export type Mail = typeof mails.$inferSelect;
