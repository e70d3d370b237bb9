import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { newId } from '@wrenn/protocol/ids';
import { until } from '@wrenn/testing/until';
import { eq, sql } from 'drizzle-orm';
import { Client } from 'pg';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { SYSTEM } from '../access/actor.ts';
import { channels, deliveries, deliveryAttempts } from '../database/channel-schema.ts';
import { type Database, openDatabase } from '../database/database.ts';
import { teamMembers, teams, users } from '../database/people-schema.ts';
import { publishEvent } from '../events/publish.ts';
import type { NewMail } from '../mail/mail.ts';
import { Outbound } from '../outbound/outbound.ts';
import { KeyRing } from '../secrets/key-ring.ts';
import { HttpReceiver, type Responder } from '../testing/http-receiver.ts';
import { createTestDatabase, type TestDatabase } from '../testing/test-database.ts';
import { insertChannel, newChannelId } from './channel-store.ts';
import { sealConfig } from './config-secrets.ts';
import { Dispatcher, type DispatcherDeps } from './dispatcher.ts';

const TEAM = 'team-test';
const warnings: string[] = [];
const log = pino({ level: 'warn' }, { write: (line) => void warnings.push(line) });
const key = randomBytes(32);
const keyRing = new KeyRing([key]);

/** A process with nothing but a dispatcher, to be killed. */
const PROGRAM = `
  import { pino } from 'pino';
  import { openDatabase } from '@wrenn/control-plane/database/database';
  import { Dispatcher } from '@wrenn/control-plane/channels/dispatcher';
  import { Outbound } from '@wrenn/control-plane/outbound/outbound';
  import { KeyRing } from '@wrenn/control-plane/secrets/key-ring';
  const log = pino({ level: 'fatal' });
  const { db } = await openDatabase({ url: process.env.URL_OF_DATABASE, dir: '/tmp', log });
  const keyRing = new KeyRing([Buffer.from(process.env.KEY, 'hex')]);
  const outbound = new Outbound({ allowedNetworks: ['127.0.0.0/8'] });
  await Dispatcher.start({ db, keyRing, outbound, log, leaseMs: 1500, sweepMs: 100, sendMail() {}, async listen() {} });
`;

let made: TestDatabase;
let database: Database;
beforeAll(async () => {
  made = await createTestDatabase();
  database = await openDatabase({ url: made.url, dir: '/tmp', log });
});
afterAll(async () => {
  await database?.[Symbol.asyncDispose]();
  await made?.[Symbol.asyncDispose]();
});

const running: AsyncDisposable[] = [];
beforeEach(() => database.db.insert(teams).values({ id: TEAM, name: 'test', slug: 'test' }));
afterEach(async () => {
  for (const each of running.splice(0).reverse()) await each[Symbol.asyncDispose]();
  await database.db.delete(teams).where(eq(teams.id, TEAM));
});

const mails: NewMail[] = [];

const outboundWithin = (timeoutMs: number) => new Outbound({ allowedNetworks: ['127.0.0.0/8'], timeoutMs });

async function startDispatcher(changes: Partial<DispatcherDeps> = {}): Promise<Dispatcher> {
  const client = await database.connectClient();
  const dispatcher = await Dispatcher.start({
    ...{ db: database.db, keyRing, log, outbound: outboundWithin(20_000) },
    sendMail: async (_tx, mail) => void mails.push(mail),
    listen: async (channel, onPayload) => {
      client.on('notification', ({ payload }) => onPayload(payload));
      await client.query(`LISTEN ${channel}`);
    },
    retryDelayMs: () => 100,
    ...changes,
  });
  running.push({ [Symbol.asyncDispose]: () => client.end() }, dispatcher);
  return dispatcher;
}

async function receiver(respond?: Responder): Promise<HttpReceiver> {
  const started = await HttpReceiver.start(respond);
  running.push(started);
  return started;
}

async function subscribe(url: string): Promise<string> {
  const id = newChannelId();
  await insertChannel(database.db, {
    ...{ id, teamId: TEAM, name: id, provider: 'webhook', events: ['host.up'], createdBy: null },
    config: sealConfig(keyRing, id, { url, secret: 'a-secret-of-a-test' }),
  });
  return id;
}

async function publish(count = 1, first = 0): Promise<void> {
  for (let n = first; n < first + count; n++) {
    const resource = { type: 'host', id: `host-${n}` };
    await database.db.transaction((tx) => publishEvent(tx, { type: 'host.up', teamId: TEAM, actor: SYSTEM, resource }));
  }
}

const namesOf = (target: HttpReceiver) => target.received.map(({ body }) => JSON.parse(body).resource.id as string);
const idsOf = (target: HttpReceiver) => target.received.map(({ headers }) => headers['x-wrenn-delivery']);
const statuses = async () => (await database.db.select().from(deliveries)).map(({ status }) => status);
/** A query may meet a connection of before an outage. */
const settled = () =>
  until('nothing is pending', () =>
    statuses().then(
      (all) => !all.includes('pending'),
      () => false,
    ),
  );

describe('the dispatcher', () => {
  it('tells at once, in order', async () => {
    const target = await receiver();
    await subscribe(target.url);
    // Nothing is looked for that was not announced.
    await startDispatcher({ sweepMs: 600_000 });
    await publish();
    await target.request(0);
    await publish(30, 1);
    await settled();
    expect(namesOf(target)).toEqual(Array.from({ length: 31 }, (_, n) => `host-${n}`));
  });

  it('tells of nothing that was not committed', async () => {
    const target = await receiver();
    await subscribe(target.url);
    await startDispatcher();
    const resource = { type: 'host', id: 'host-never' };
    const undone = database.db.transaction(async (tx) => {
      await publishEvent(tx, { type: 'host.up', teamId: TEAM, actor: SYSTEM, resource });
      throw new Error('undone');
    });
    await expect(undone).rejects.toThrow('undone');
    await publish();
    await settled();
    expect(namesOf(target)).toEqual(['host-0']);
  });

  it('repeats what fails, under one id, until the receiver is well again', async () => {
    let failures = 3;
    const target = await receiver((_request, response) => response.writeHead(failures-- > 0 ? 503 : 200).end());
    await subscribe(target.url);
    await startDispatcher();
    await publish();
    await settled();
    expect(target.received).toHaveLength(4);
    expect(new Set(idsOf(target)).size).toBe(1);
    expect(new Set(target.received.map(({ body }) => body)).size).toBe(1);
    const attempts = await database.db.select().from(deliveryAttempts).orderBy(deliveryAttempts.number);
    expect(attempts.map(({ number, statusCode }) => [number, statusCode])).toEqual([
      ...[1, 2, 3].map((n) => [n, 503]),
      [4, 200],
    ]);
    const [channel] = await database.db.select().from(channels);
    expect(channel?.failingSince).toBeNull();
  });

  it('gives up in the end', async () => {
    const target = await receiver((_request, response) => response.writeHead(500).end());
    await subscribe(target.url);
    await startDispatcher({ retryDelayMs: (retries) => (retries < 2 ? 20 : undefined) });
    await publish();
    await settled();
    expect(await statuses()).toEqual(['failed']);
    expect(target.received).toHaveLength(3);
  });

  it('goes on with others while one receiver hangs', async () => {
    const release = Promise.withResolvers<void>();
    const hanging = await receiver(
      (_request, response) => void release.promise.then(() => response.writeHead(204).end()),
    );
    const quick = await receiver();
    await subscribe(hanging.url);
    await subscribe(quick.url);
    await startDispatcher();
    await publish(3);
    await until('the quick one knows all', () => quick.received.length === 3);
    await hanging.request(0);
    expect(hanging.received).toHaveLength(1);
    release.resolve();
    await settled();
    expect(namesOf(hanging)).toEqual(namesOf(quick));
  });

  it('gives up an attempt that takes too long', async () => {
    const hanging = await receiver(() => undefined);
    await subscribe(hanging.url);
    await startDispatcher({ outbound: outboundWithin(1000), retryDelayMs: () => undefined });
    await publish();
    await settled();
    const errors = (await database.db.select().from(deliveryAttempts)).map(({ error }) => error);
    expect(errors).toEqual(['no answer within 1 s']);
  });

  it('is silent for as long as the receiver asks', async () => {
    let isFirst = true;
    const target = await receiver((_request, response) => {
      response.writeHead(isFirst ? 429 : 200, isFirst ? { 'retry-after': '2' } : {}).end();
      isFirst = false;
    });
    await subscribe(target.url);
    await startDispatcher();
    await publish(2);
    await settled();
    const [first, second] = target.received;
    if (!first || !second) throw new Error('two requests were expected');
    expect(second.at.getTime() - first.at.getTime()).toBeGreaterThan(1900);
    expect(namesOf(target)).toEqual(['host-0', 'host-0', 'host-1']);
  });

  it('switches a channel off that has failed for days, and writes to those who can mend it', async () => {
    mails.length = 0;
    const target = await receiver((_request, response) => response.writeHead(500).end());
    const id = await subscribe(target.url);
    const owner = { id: newId('usr'), email: 'owner@example.com', name: 'Owner', status: 'active' as const };
    await database.db.insert(users).values(owner);
    await database.db.insert(teamMembers).values({ teamId: TEAM, userId: owner.id, role: 'owner' });
    await database.db.update(channels).set({ failingSince: sql`now() - interval '73 hours'` });
    await startDispatcher();
    await publish();
    await settled();
    const [channel] = await database.db.select().from(channels).where(eq(channels.id, id));
    expect(channel?.disabledReason).toMatch(/failed for days/);
    expect(mails).toMatchObject([{ to: 'owner@example.com', kind: 'channel', subject: expect.stringContaining(id) }]);
    await publish();
    expect(await statuses()).toEqual(['failed']);
  });
});

describe('two dispatchers of one database', () => {
  it('tell everything exactly once under load', async () => {
    const targets = await Promise.all([1, 2, 3, 4].map(() => receiver()));
    for (const { url } of targets) await subscribe(url);
    const other = await openDatabase({ url: made.url, dir: '/tmp', log });
    running.push(other);
    await startDispatcher();
    await startDispatcher({ db: other.db });
    await Promise.all([publish(40), publish(40, 40), publish(40, 80)]);
    await settled();
    for (const target of targets) {
      expect(target.received).toHaveLength(120);
      expect(new Set(namesOf(target)).size).toBe(120);
      expect(new Set(idsOf(target)).size).toBe(120);
    }
    expect(await database.db.$count(deliveryAttempts)).toBe(480);
  });

  it('take over from each other when one is killed between sending and recording', async () => {
    const target = await receiver((_request, response) => target.received.length > 1 && response.writeHead(204).end());
    const id = await subscribe(target.url);
    const killed = spawn(process.execPath, ['--input-type=module', '--eval', PROGRAM], {
      env: { ...process.env, URL_OF_DATABASE: made.url, KEY: key.toString('hex') },
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    running.push({ [Symbol.asyncDispose]: async () => void killed.kill('SIGKILL') });
    await publish();
    await target.request(0);
    killed.kill('SIGKILL');
    await once(killed, 'exit');
    const [left] = await database.db.select().from(channels).where(eq(channels.id, id));
    expect(left?.leasedBy).not.toBeNull();
    await startDispatcher({ sweepMs: 200 });
    await settled();
    expect(target.received).toHaveLength(2);
    expect(new Set(idsOf(target)).size).toBe(1);
  });
});

it('loses nothing while the database is away, and does not tell twice what it could record later', async () => {
  const release = Promise.withResolvers<void>();
  const target = await receiver((_request, response) => void release.promise.then(() => response.writeHead(204).end()));
  await subscribe(target.url);
  await startDispatcher({ sweepMs: 200 });
  await publish(3);
  await target.request(0);
  // Every connection of the program breaks while a request is under way, and none can be made for a moment.
  const admin = new Client(made.url.replace(/\/wrenn_test_\w+/, '/postgres'));
  await admin.connect();
  const name = /\/(wrenn_test_\w+)/.exec(made.url)?.[1];
  await admin.query(`ALTER DATABASE ${name} WITH ALLOW_CONNECTIONS false`);
  await admin.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`);
  release.resolve();
  await until('an attempt could not be recorded', () => warnings.some((text) => text.includes('could not record')));
  await admin.query(`ALTER DATABASE ${name} WITH ALLOW_CONNECTIONS true`);
  await admin.end();
  await settled();
  expect(namesOf(target)).toEqual(['host-0', 'host-1', 'host-2']);
});
