import { and, desc, eq, inArray, isNotNull, lt, ne, or, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type Mail, mails } from '../database/mail-schema.ts';

export type NewMailRow = Pick<Mail, 'id' | 'toAddress' | 'kind' | 'subject' | 'body' | 'status' | 'expiresAt'>;

export async function insertMail(db: Db, row: NewMailRow): Promise<void> {
  await db.insert(mails).values({ ...row, createdAt: sql`clock_timestamp()` });
}

/** A mail that is still to be sent, one more attempt counted; undefined when it is not. */
export async function beginAttempt(db: Db, id: string): Promise<Mail | undefined> {
  const [row] = await db
    .update(mails)
    .set({ attempts: sql`${mails.attempts} + 1` })
    .where(and(eq(mails.id, id), eq(mails.status, 'queued')))
    .returning();
  return row;
}

/** Its content is forgotten with that. */
export async function markSent(db: Db, id: string): Promise<void> {
  await db
    .update(mails)
    .set({ status: 'sent', sentAt: sql`clock_timestamp()`, error: null, body: '' })
    .where(eq(mails.id, id));
}

/** Another attempt follows. */
export async function noteFailedAttempt(db: Db, id: string, error: string): Promise<void> {
  await db.update(mails).set({ error }).where(eq(mails.id, id));
}

/** Its content stays as long as its link works, so that an administrator can pass it on. */
export async function markFailed(db: Db, id: string, error: string): Promise<void> {
  await db.update(mails).set({ status: 'failed', error }).where(eq(mails.id, id));
}

export async function markHeld(db: Db, id: string): Promise<void> {
  await db.update(mails).set({ status: 'held' }).where(eq(mails.id, id));
}

export interface MailPage {
  readonly statuses?: readonly Mail['status'][] | undefined;
  readonly limit: number;
  /** The last mail of the page before this one. */
  readonly after?: { readonly createdAt: Date; readonly id: string } | undefined;
}

/** The newest first. */
export async function selectMails(db: Db, { statuses, limit, after }: MailPage): Promise<Mail[]> {
  return db
    .select()
    .from(mails)
    .where(
      and(
        statuses && inArray(mails.status, [...statuses]),
        after && sql`(${mails.createdAt}, ${mails.id}) < (${after.createdAt.toISOString()}::timestamptz, ${after.id})`,
      ),
    )
    .orderBy(desc(mails.createdAt), desc(mails.id))
    .limit(limit);
}

/** Forgets the content of mails whose link has stopped to work. */
export async function wipeExpired(db: Db): Promise<void> {
  await db
    .update(mails)
    .set({ body: '' })
    .where(and(ne(mails.body, ''), isNotNull(mails.expiresAt), lt(mails.expiresAt, sql`clock_timestamp()`)));
}

/** @returns how many it removed */
export async function deleteMailsBefore(db: Db, instant: Date): Promise<number> {
  const { rowCount } = await db
    .delete(mails)
    .where(and(lt(mails.createdAt, instant), or(ne(mails.status, 'queued'), lt(mails.expiresAt, instant))));
  return rowCount ?? 0;
}
