import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { quietPort } from '@wrenn/testing/quiet-port';
import { until } from '@wrenn/testing/until';
import { eq, sql } from 'drizzle-orm';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Database } from '../database/database.ts';
import { type Mail, mails } from '../database/mail-schema.ts';
import { Jobs } from '../jobs/jobs.ts';
import { KeyRing } from '../secrets/key-ring.ts';
import type { SmtpSettings } from '../settings.ts';
import { SmtpReceiver, type SmtpReceiverOptions } from '../testing/smtp-receiver.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { type Mailer, openMailer } from './delivery.ts';
import type { NewMail } from './mail.ts';
import { listMails } from './mails.ts';

const log = pino({ level: 'silent' });
const publicUrl = 'https://wrenn.example';
const key = randomBytes(32);
const keyRing = new KeyRing([key]);
/** As quick as pg-boss allows. */
const PACE = { poll: 0.5, supervise: 1, heartbeat: 10 };
const RETRY = { limit: 3, delayMs: 1000, maxDelayMs: 1000 };
const TO = 'ada@people.example';
let database: Database;
let stack: AsyncDisposableStack;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  database = stack.use(await openTestDatabase());
});
afterEach(() => stack.disposeAsync());

async function receive(options: SmtpReceiverOptions = {}): Promise<SmtpReceiver> {
  return stack.use(await SmtpReceiver.start(options));
}

/** A control plane as far as mail is concerned. */
async function sender(smtp: SmtpSettings | undefined): Promise<Mailer> {
  const jobs = stack.use(await Jobs.open({ connection: database.connection, log, paceS: PACE }));
  const mailer = openMailer({ db: database.db, keyRing, jobs, smtp, publicUrl, log, retry: RETRY });
  await jobs.start();
  stack.defer(async () => {
    await jobs[Symbol.asyncDispose]();
    mailer[Symbol.dispose]();
  });
  return mailer;
}

async function row(id: string): Promise<Mail> {
  const [found] = await database.db.select().from(mails).where(eq(mails.id, id));
  if (!found) throw new Error(`there is no mail ${id}`);
  return found;
}

const settled = (id: string) =>
  until('the mail is settled', async () => {
    const found = await row(id);
    return found.status === 'queued' ? undefined : found;
  });

const activation = (to = TO): NewMail => ({
  to,
  kind: 'activation',
  name: 'Ada',
  link: '/activate?token=s3cret-token',
  expiresAt: new Date(Date.now() + 1_800_000),
});

describe('mail', () => {
  it('comes as text and HTML, with its link, and is forgotten after', async () => {
    const receiver = await receive();
    const mailer = await sender(receiver.settings);
    const id = await database.db.transaction((tx) => mailer.send(tx, activation()));
    const mail = await receiver.take(TO);
    expect(mail.subject).toBe('Activate your Wrenn account');
    expect(mail.from?.value).toEqual([{ name: 'Wrenn', address: 'wrenn@mail.example' }]);
    expect(mail.messageId).toBe(`<${id}@mail.example>`);
    expect(mail.headers.get('auto-submitted')).toBe('auto-generated');
    expect(mail.text).toContain(`${publicUrl}/activate?token=s3cret-token`);
    expect(mail.text).toContain('wrenn activate s3cret-token');
    expect(mail.html).toContain(`href="${publicUrl}/activate?token=s3cret-token"`);
    expect(await settled(id)).toMatchObject({ status: 'sent', body: '', attempts: 1, error: null });
  });

  it('is not sent where the transaction was rolled back', async () => {
    const receiver = await receive();
    const mailer = await sender(receiver.settings);
    await expect(
      database.db.transaction(async (tx) => {
        await mailer.send(tx, activation('nobody@people.example'));
        throw new Error('rolled back');
      }),
    ).rejects.toThrow('rolled back');
    await mailer.send(database.db, activation());
    await receiver.take(TO);
    expect(receiver.mails).toEqual([]);
  });

  it('keeps what it says encrypted until then', async () => {
    const mailer = await sender({ ...(await deafPort()), host: '127.0.0.1', username: undefined, password: undefined });
    const id = await mailer.send(database.db, activation());
    const { body } = await row(id);
    expect(body).not.toBe('');
    expect(body).not.toContain('s3cret');
    const { rows } = await database.db.execute(sql`SELECT data::text FROM pgboss.job`);
    expect(JSON.stringify(rows)).not.toContain('s3cret');
  });

  it('goes over STARTTLS with a login', async () => {
    const receiver = await receive({ login: { user: 'wrenn', password: 'geheim' } });
    const mailer = await sender(receiver.settings);
    await mailer.send(database.db, activation());
    expect(await receiver.take(TO)).toMatchObject({ overTls: true, user: 'wrenn' });
  });

  it('is tried again after a wrong password, which an administrator can mend', async () => {
    const receiver = await receive({ login: { user: 'wrenn', password: 'geheim' } });
    const mailer = await sender({ ...receiver.settings, password: 'wrong' });
    const id = await mailer.send(database.db, activation());
    const noted = await until('it was tried', async () => {
      const found = await row(id);
      return found.error ? found : undefined;
    });
    expect(noted).toMatchObject({ status: 'queued', error: expect.stringContaining('wrong password') });
  });

  it('comes in spite of greylisting', async () => {
    let asked = 0;
    const receiver = await receive({
      onRecipient: () => (++asked === 1 ? { code: 451, text: 'greylisted, come back later' } : undefined),
    });
    const mailer = await sender(receiver.settings);
    const id = await mailer.send(database.db, activation());
    await receiver.take(TO);
    expect(await settled(id)).toMatchObject({ status: 'sent', attempts: 2 });
  });

  it('gives up at once where the server knows nobody of that name', async () => {
    let asked = 0;
    const receiver = await receive({
      onRecipient: () => {
        asked += 1;
        return { code: 550, text: 'no such user here' };
      },
    });
    const mailer = await sender(receiver.settings);
    const id = await mailer.send(database.db, activation());
    expect(await settled(id)).toMatchObject({
      status: 'failed',
      attempts: 1,
      error: expect.stringContaining('no such user here'),
    });
    expect(asked).toBe(1);
  });

  it('waits for a server that is not there yet', async () => {
    const { port, from } = await deafPort();
    const mailer = await sender({ host: '127.0.0.1', port, username: undefined, password: undefined, from });
    const id = await mailer.send(database.db, activation());
    await until('it was tried', async () => (await row(id)).error !== null);
    const receiver = await receive({ port });
    await receiver.take(TO);
    expect((await settled(id)).attempts).toBeGreaterThan(1);
  });

  it('fails in the end, and its link can still be passed on', async () => {
    const receiver = await receive({ onRecipient: () => ({ code: 452, text: 'mailbox full' }) });
    const mailer = await sender(receiver.settings);
    const id = await mailer.send(database.db, activation());
    expect(await settled(id)).toMatchObject({ status: 'failed', attempts: 4 });
    const [listed] = await listMails({ db: database.db, keyRing, publicUrl }, { limit: 10 });
    expect(listed).toMatchObject({ id, status: 'failed', link: `${publicUrl}/activate?token=s3cret-token` });
  });

  it('does not keep others waiting while a server hangs', async () => {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => sockets.add(socket.on('error', () => undefined)));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    stack.defer(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    const { port } = server.address() as { port: number };
    const jobs = await Jobs.open({ connection: database.connection, log, paceS: PACE });
    const smtp = { host: '127.0.0.1', port, username: undefined, password: undefined, from: 'a@b.example' };
    const mailer = openMailer({ db: database.db, keyRing, jobs, smtp, publicUrl, log });
    await jobs.start();
    const id = await mailer.send(database.db, activation());
    await until('it is connected', () => sockets.size > 0);
    await jobs[Symbol.asyncDispose]();
    mailer[Symbol.dispose]();
    const noted = await until('it is noted', async () => {
      const found = await row(id);
      return found.error ? found : undefined;
    });
    // Said at the begin of the stop; a mail that is left when its time is over hears something else.
    expect(noted).toMatchObject({ status: 'queued', error: 'this control plane stops' });
  });

  it('is the same mail when its sender was killed before it could put down that it was sent', async () => {
    let whole: (() => Promise<void>) | undefined;
    const receiver = await receive({ beforeConfirm: () => whole?.() });
    const module = (path: string) => JSON.stringify(join(import.meta.dirname, path));
    const script = `
      const { Jobs } = await import(${module('../jobs/jobs.ts')});
      const { openDatabase } = await import(${module('../database/database.ts')});
      const { KeyRing } = await import(${module('../secrets/key-ring.ts')});
      const { openMailer } = await import(${module('delivery.ts')});
      const { pino } = await import('pino');
      const { url, key, options, paceS } = JSON.parse(process.env.SENDER);
      const log = pino({ level: 'silent' });
      const { db, connection } = await openDatabase({ url, dir: '/tmp', log });
      const jobs = await Jobs.open({ connection, log, paceS });
      openMailer({ db, keyRing: new KeyRing([Buffer.from(key, 'hex')]), jobs, log, ...options });
      await jobs.start();`;
    const options = { smtp: receiver.settings, publicUrl, retry: RETRY };
    const sent = { url: database.connection.connectionString, key: key.toString('hex'), options, paceS: PACE };
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      cwd: import.meta.dirname,
      env: { ...process.env, SENDER: JSON.stringify(sent) },
      stdio: 'inherit',
    });
    const ended = once(child, 'exit');
    stack.defer(() => void child.kill('SIGKILL'));
    whole = async () => {
      whole = undefined;
      child.kill('SIGKILL');
      await ended;
    };
    // Puts the mail in, and sends nothing by itself.
    const jobs = stack.use(await Jobs.open({ connection: database.connection, log, paceS: PACE }));
    const { send } = openMailer({ db: database.db, keyRing, jobs, smtp: receiver.settings, publicUrl, log });
    await until('the child has made the queue', async () => {
      const { rows } = await database.db.execute(sql`SELECT 1 FROM pgboss.queue WHERE name = 'mail'`);
      return rows.length > 0;
    });
    const id = await send(database.db, activation());
    const first = await receiver.take(TO);
    await sender(receiver.settings);
    const second = await receiver.take(TO);
    expect([second.messageId, second.text]).toEqual([first.messageId, first.text]);
    expect(await settled(id)).toMatchObject({ status: 'sent', attempts: 2 });
    expect(receiver.mails).toEqual([]);
  }, 180_000);

  it('comes once where two control planes send', async () => {
    const receiver = await receive();
    const [first, second] = [await sender(receiver.settings), await sender(receiver.settings)];
    await database.db.transaction(async (tx) => {
      for (let n = 0; n < 30; n++) await (n % 2 ? first : second).send(tx, activation(`p${n}@people.example`));
    });
    await until('all are sent', async () => {
      const { rows } = await database.db.execute(sql`SELECT 1 FROM mails WHERE status <> 'sent'`);
      return rows.length === 0;
    });
    expect(receiver.mails.map(({ recipients }) => recipients[0]).sort()).toEqual(
      Array.from({ length: 30 }, (_, n) => `p${n}@people.example`).sort(),
    );
  });

  it('is not sent when its link does not work any more', async () => {
    const receiver = await receive();
    const mailer = await sender(receiver.settings);
    const id = await mailer.send(database.db, { ...activation(), expiresAt: new Date(Date.now() - 1000) });
    expect(await settled(id)).toMatchObject({ status: 'failed', error: expect.stringContaining('link') });
    expect(receiver.mails).toEqual([]);
  });

  it.each([
    'ada@people.example, eve@evil.example',
    'ada@people.example\r\nBcc: eve@evil.example',
    'Ada <ada@people.example>',
    'no address',
  ])('goes to one address: %j is refused', async (to) => {
    const mailer = await sender(undefined);
    await expect(mailer.send(database.db, activation(to))).rejects.toThrow('one address');
  });

  it('has no headers but ours, whatever names hold', async () => {
    const receiver = await receive();
    const mailer = await sender(receiver.settings);
    const teamName = 'Blue\r\nBcc: eve@evil.example\r\n\r\nhello';
    await mailer.send(database.db, { to: TO, kind: 'added_to_team', teamName, actorName: 'x\nSubject: y' });
    const mail = await receiver.take(TO);
    expect(mail.recipients).toEqual([TO]);
    expect(mail.bcc).toBeUndefined();
    expect(mail.headerLines.map(({ key }) => key).sort()).toEqual(
      ['auto-submitted', 'content-type', 'date', 'from', 'message-id', 'mime-version', 'subject', 'to'].sort(),
    );
  });

  it('is held without a server, in no queue, with its link for the administrator while that works', async () => {
    const mailer = await sender(undefined);
    const id = await mailer.send(database.db, activation());
    const sentMs = Date.now();
    // They are listed by the millisecond.
    await until('the clock goes on', () => Date.now() > sentMs + 2);
    const old = await mailer.send(database.db, { ...activation(), expiresAt: new Date(Date.now() - 1000) });
    const deps = { db: database.db, keyRing, publicUrl };
    const listed = await listMails(deps, { limit: 10, statuses: ['held'] });
    expect(listed.map((mail) => [mail.id, mail.link])).toEqual([
      [old, undefined],
      [id, `${publicUrl}/activate?token=s3cret-token`],
    ]);
    const [first] = listed;
    const rest = await listMails(deps, { limit: 10, after: first });
    expect(rest.map((mail) => mail.id)).toEqual([id]);
    expect(listed[0]).not.toHaveProperty('body');
    const { rows } = await database.db.execute(sql`SELECT 1 FROM pgboss.job WHERE name = 'mail'`);
    expect(rows).toEqual([]);
  });
});

/** A port that nobody listens on. */
async function deafPort(): Promise<{ port: number; from: string }> {
  return { port: await quietPort(), from: 'wrenn@mail.example' };
}
