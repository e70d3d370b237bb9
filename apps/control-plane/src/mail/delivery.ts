import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { type Db, isDatabaseOutage } from '../database/database.ts';
import type { Attempt, Jobs } from '../jobs/jobs.ts';
import type { KeyRing } from '../secrets/key-ring.ts';
import type { SmtpSettings } from '../settings.ts';
import type { MailKind } from './mail.ts';
import {
  beginAttempt,
  deleteMailsBefore,
  markFailed,
  markHeld,
  markSent,
  noteFailedAttempt,
  wipeExpired,
} from './mail-store.ts';
import { contentOf, MAIL_QUEUE, type MailSender, sendMail } from './mails.ts';
import { renderMail } from './render.ts';
import { MailRefused, openSmtp, type Smtp } from './smtp.ts';

const PRUNE_QUEUE = 'mail-prune';
const KEEP_MS = 30 * 24 * 3_600_000;
const DEADLINE_MS = 120_000;
/** With pauses of half a minute up to two hours: about a day, as mail servers do it among each other. */
const RETRY = { limit: 22, delayMs: 30_000, maxDelayMs: 2 * 3_600_000 };
const OUTAGE_RETRY_MS = 500;

export interface MailOptions {
  readonly db: Db;
  readonly keyRing: KeyRing;
  /** Not started yet. */
  readonly jobs: Jobs;
  readonly smtp: SmtpSettings | undefined;
  readonly publicUrl: string;
  readonly log: Logger;
  /** Only for tests: other pauses. */
  readonly retry?: typeof RETRY;
}

/** What sends mail. Disposing it closes connections to the mail server. */
export interface Mailer extends MailSender, Disposable {}

/** Says how mails are sent and when they are forgotten. */
export function openMailer(options: MailOptions): Mailer {
  const { keyRing, jobs, smtp: settings, db, log } = options;
  const smtp = settings && openSmtp(settings);
  if (!smtp) log.info('no SMTP_HOST is set: mails are held, and an administrator sees their links');
  jobs.define<{ mailId: string }>(
    MAIL_QUEUE,
    { deadlineMs: DEADLINE_MS, concurrency: 2, retry: options.retry ?? RETRY },
    ({ mailId }, signal, attempt) => deliver(options, smtp, mailId, signal, attempt),
  );
  jobs.define(PRUNE_QUEUE, { deadlineMs: 60_000 }, async () => {
    await wipeExpired(db);
    const removed = await deleteMailsBefore(db, new Date(Date.now() - KEEP_MS));
    if (removed > 0) log.info({ removed }, 'removed old mails');
  });
  jobs.schedule(PRUNE_QUEUE, '*/10 * * * *');
  return {
    send: (tx, mail) => sendMail({ db: tx, keyRing, jobs, canSend: smtp !== undefined }, mail),
    [Symbol.dispose]: () => smtp?.[Symbol.dispose](),
  };
}

async function deliver(
  { db, keyRing, smtp: settings, publicUrl, log }: MailOptions,
  smtp: Smtp | undefined,
  id: string,
  signal: AbortSignal,
  { isLast }: Attempt,
): Promise<void> {
  const mail = await beginAttempt(db, id);
  // An earlier run came as far as to say how it ended.
  if (!mail) return;
  if (!smtp || !settings) return markHeld(db, id);
  const content = contentOf(mail, keyRing);
  if (!content || (mail.expiresAt && content.link && mail.expiresAt.getTime() <= Date.now())) {
    return markFailed(db, id, 'its link stopped to work before a mail server took it');
  }
  const rendered = renderMail(mail.kind as MailKind, content, publicUrl);
  const messageId = `<${id}@${settings.from.split('@').at(-1)?.replace(/>$/, '')}>`;
  try {
    await smtp.send({ ...rendered, to: mail.toAddress, messageId, date: mail.createdAt }, signal);
  } catch (error) {
    const { message } = error as Error;
    const isOver = isLast || (error instanceof MailRefused && error.isPermanent);
    log.warn({ err: error, mail: id, kind: mail.kind, isOver }, 'a mail was not taken');
    if (!isOver) {
      await noteFailedAttempt(db, id, message);
      throw error;
    }
    return markFailed(db, id, message);
  }
  await persist(() => markSent(db, id), signal);
  log.info({ mail: id, kind: mail.kind, attempts: mail.attempts }, 'mail sent');
}

/** What cannot be undone is put down as soon as the database takes it: else it would be done again. */
async function persist(write: () => Promise<void>, signal: AbortSignal): Promise<void> {
  for (;;) {
    try {
      return await write();
    } catch (error) {
      if (!isDatabaseOutage(error) || signal.aborted) throw error;
      await delay(OUTAGE_RETRY_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}
