import { newId } from '@wrenn/protocol/ids';
import type { Db } from '../database/database.ts';
import type { Mail } from '../database/mail-schema.ts';
import type { Jobs } from '../jobs/jobs.ts';
import type { KeyRing } from '../secrets/key-ring.ts';
import type { MailContent, NewMail } from './mail.ts';
import { insertMail, type MailPage, selectMails } from './mail-store.ts';
import { resolveLink } from './render.ts';
import { wordsFor } from './words.ts';

/** Queue of mails to send; each job names one. */
export const MAIL_QUEUE = 'mail';

export interface MailDeps {
  /** The transaction of what the mail tells of. */
  readonly db: Db;
  readonly keyRing: KeyRing;
  readonly jobs: Pick<Jobs, 'enqueue'>;
  /** Whether there is a server that takes mail; else mails are held for the administrator. */
  readonly canSend: boolean;
}

/** Sends mail on behalf of routes. */
export interface MailSender {
  /**
   * Sends a mail if the transaction is committed, and only then. Never waits for a mail server.
   *
   * @returns its id
   */
  send(tx: Db, mail: NewMail): Promise<string>;
}

/** @returns the id of the mail */
export async function sendMail({ db, keyRing, jobs, canSend }: MailDeps, mail: NewMail): Promise<string> {
  const { to, kind, expiresAt, ...rest } = mail;
  if (!isOneAddress(to)) throw new Error('a mail goes to one address');
  const id = newId('mail');
  const content: MailContent = { ...rest, expiresAt: expiresAt?.toISOString() };
  await insertMail(db, {
    id,
    toAddress: to,
    kind,
    subject: wordsFor(kind, content).subject,
    body: keyRing.encrypt(JSON.stringify(content), placeOf(id)),
    status: canSend ? 'queued' : 'held',
    expiresAt: expiresAt ?? null,
  });
  if (canSend) await jobs.enqueue(db, MAIL_QUEUE, { mailId: id });
  return id;
}

/** Undefined when it was sent, or its link has expired. */
export function contentOf({ id, body }: Mail, keyRing: KeyRing): MailContent | undefined {
  return body === '' ? undefined : (JSON.parse(keyRing.decrypt(body, placeOf(id))) as MailContent);
}

/** A mail as an administrator sees it. */
export interface ListedMail extends Omit<Mail, 'body'> {
  /** To pass on by hand; undefined when there is none or it does not work any more. */
  readonly link: string | undefined;
}

/** The newest first, with links where they still work. @param publicUrl as for sending */
export async function listMails(
  { db, keyRing, publicUrl }: { db: Db; keyRing: KeyRing; publicUrl: string },
  page: MailPage,
): Promise<ListedMail[]> {
  const rows = await selectMails(db, page);
  return rows.map((row) => {
    const { body: _, ...shown } = row;
    const isOver = row.expiresAt !== null && row.expiresAt.getTime() <= Date.now();
    const link = isOver ? undefined : contentOf(row, keyRing)?.link;
    return { ...shown, link: link && resolveLink(link, publicUrl) };
  });
}

/** Where links lead when nobody said where people reach this server. */
export function publicUrlOf(settings: { publicUrl: string | undefined; listen: { port: number } }): string {
  return settings.publicUrl ?? `http://localhost:${settings.listen.port}`;
}

/** What the sealed text is bound to. */
export function placeOf(id: string): string {
  return `mail:${id}`;
}

/** Not a check of what addresses may be: only that this is one, and nothing else. */
function isOneAddress(to: string): boolean {
  return to.length <= 320 && /^[^\s\p{Cc}<>,;:"()[\]\\]+@[^\s\p{Cc}<>,;:"()\\@]+$/u.test(to);
}
