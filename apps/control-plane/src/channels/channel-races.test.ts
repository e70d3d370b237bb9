import { randomBytes } from 'node:crypto';
import { eq } from 'drizzle-orm';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { SYSTEM } from '../access/actor.ts';
import { channels, deliveries } from '../database/channel-schema.ts';
import type { Database } from '../database/database.ts';
import { teams } from '../database/people-schema.ts';
import { publishEvent } from '../events/publish.ts';
import { Outbound } from '../outbound/outbound.ts';
import { KeyRing } from '../secrets/key-ring.ts';
import { untilBlocked } from '../testing/blocked.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { lockChannel, newChannelId } from './channel-store.ts';
import { createChannel } from './channels.ts';
import { recordAttempt } from './record-attempt.ts';

const sendMail = async () => undefined;

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database?.[Symbol.asyncDispose]());

/** A team with so many channels. */
async function addTeam(count: number): Promise<string> {
  const id = `team-${count}`;
  await database.db.insert(teams).values({ id, name: id, slug: id });
  const common = { teamId: id, provider: 'webhook' as const, config: {}, events: ['host.up'] };
  const rows = Array.from({ length: count }, (_, n) => ({ ...common, id: newChannelId(), name: `channel-${n}` }));
  await database.db.insert(channels).values(rows);
  return id;
}

it('a team has no more channels than it may, also of two that are made at the same moment', async () => {
  const { db } = database;
  const teamId = await addTeam(99);
  const deps = {
    ...{ db, sendMail, log: pino({ level: 'silent' }) },
    ...{ keyRing: new KeyRing([randomBytes(32)]), outbound: new Outbound({ allowedNetworks: [] }) },
  };
  const { made } = await db.transaction(async (tx) => {
    await tx.select().from(teams).where(eq(teams.id, teamId)).for('no key update');
    const begun = ['one', 'two'].map((name) => {
      const config = { url: 'https://example.com' };
      return createChannel(deps, { teamId, actor: SYSTEM }, { name, provider: 'webhook', config, events: ['host.up'] });
    });
    await untilBlocked(db, 2);
    return { made: Promise.allSettled(begun) };
  });
  expect((await made).map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
});

it('an attempt is written down after who has its channel, and leaves them its delivery', async () => {
  const { db } = database;
  const teamId = await addTeam(1);
  const resource = { type: 'host', id: 'host-test' };
  await db.transaction((tx) => publishEvent(tx, { type: 'host.up', teamId, actor: SYSTEM, resource }));
  const [channel] = await db.select().from(channels).where(eq(channels.teamId, teamId));
  const [delivery] = await db.select().from(deliveries);
  if (!channel || !delivery) throw new Error('nothing is to be delivered');
  const outcome = { result: 'failed', error: 'nobody is there' } as const;
  const { recorded } = await db.transaction(async (tx) => {
    await lockChannel(tx, teamId, channel.id);
    const attempt = { startedAt: new Date(), durationMs: 1, outcome };
    const begun = recordAttempt(db, { sendMail, retryDelayMs: () => 1000 }, channel, delivery, attempt);
    await untilBlocked(db);
    await tx.select().from(deliveries).where(eq(deliveries.id, delivery.id)).for('update', { noWait: true });
    return { recorded: begun };
  });
  expect(await recorded).toBe(1000);
});
