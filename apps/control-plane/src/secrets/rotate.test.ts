import { randomBytes } from 'node:crypto';
import { newId } from '@wrenn/protocol/ids';
import { eq, sql } from 'drizzle-orm';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { insertChannel, newChannelId } from '../channels/channel-store.ts';
import { openConfig, sealConfig } from '../channels/config-secrets.ts';
import { channels } from '../database/channel-schema.ts';
import type { Database } from '../database/database.ts';
import { mails } from '../database/mail-schema.ts';
import { teams, users } from '../database/people-schema.ts';
import { idempotentRequests } from '../database/request-schema.ts';
import { openAnswer, sealAnswer } from '../http/kept-answer.ts';
import { contentOf, sendMail } from '../mail/mails.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { totpPlace } from '../two-factor/second-factor.ts';
import { KeyRing } from './key-ring.ts';
import { rotateSecrets } from './rotate.ts';

const log = pino({ level: 'silent' });
const [older, newer] = [randomBytes(32), randomBytes(32)];
const before = new KeyRing([older]);
const between = new KeyRing([newer, older]);
const after = new KeyRing([newer]);
const CHANNELS = 450;

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database?.[Symbol.asyncDispose]());

it('leaves nothing that needs the old key', async () => {
  const { db } = database;
  await db.insert(teams).values({ id: 'team-test', name: 'test', slug: 'test' });
  const config = { url: 'https://example.com/hush', secret: 'hush' };
  const ids = Array.from({ length: CHANNELS }, newChannelId);
  for (const id of ids) {
    await insertChannel(db, {
      ...{ id, teamId: 'team-test', name: id, provider: 'webhook', events: ['host.up'], createdBy: null },
      config: sealConfig(before, id, config),
    });
  }
  const user = { id: newId('usr'), email: 'a@example.com', name: 'A', status: 'active' as const };
  await db.insert(users).values({ ...user, totpSecret: before.encrypt('totp', totpPlace(user.id)) });
  const mailId = await sendMail(
    { db, keyRing: before, jobs: { enqueue: async () => undefined }, canSend: false },
    { to: 'a@example.com', kind: 'password_reset', link: '/reset?token=x' },
  );
  const name = { owner: user.id, operation: 'createTeam', key: 'a\tkey' };
  const answer = sealAnswer(before, name, {}, '{"secret":"hush"}');
  await db
    .insert(idempotentRequests)
    .values({ ...name, requestHash: '', runner: 1, status: 200, finishedAt: new Date(), answer });

  expect(await rotateSecrets(db, between, log)).toEqual([
    { column: 'channels.config', renewed: CHANNELS, unreadable: 0 },
    { column: 'users.totp_secret', renewed: 1, unreadable: 0 },
    { column: 'mails.body', renewed: 1, unreadable: 0 },
    { column: 'idempotent_requests.answer', renewed: 1, unreadable: 0 },
  ]);

  for (const row of await db.select().from(channels)) expect(openConfig(after, row.id, row.config)).toEqual(config);
  const [found] = await db.select().from(users);
  expect(after.decrypt(found?.totpSecret ?? '', totpPlace(user.id))).toBe('totp');
  const [mail] = await db.select().from(mails).where(eq(mails.id, mailId));
  expect(mail && contentOf(mail, after)).toMatchObject({ link: '/reset?token=x' });
  const [kept] = await db.select().from(idempotentRequests);
  expect(openAnswer(after, name, kept?.answer ?? '')).toMatchObject({ body: '{"secret":"hush"}' });
  expect((await rotateSecrets(db, after, log)).map(({ renewed }) => renewed)).toEqual([0, 0, 0, 0]);

  // Another place's value, as somebody could put it there who writes to the database.
  await db.execute(sql`UPDATE users SET totp_secret = (SELECT config ->> 'url' FROM channels LIMIT 1)`);
  const lost = new KeyRing([randomBytes(32), newer]);
  expect((await rotateSecrets(db, lost, log))[1]).toEqual({ column: 'users.totp_secret', renewed: 0, unreadable: 1 });
});
