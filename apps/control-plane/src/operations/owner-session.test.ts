import { Socket } from 'node:net';
import { Client } from 'pg';
import { pino } from 'pino';
import { expect, it } from 'vitest';
import { openTestDatabase } from '../testing/test-database.ts';
import { FINISHED_CHANNEL } from './operation-store.ts';
import { OwnerSession } from './owner-session.ts';

it('wakes everybody who waits when announcements may have been missed, and only who is meant otherwise', async () => {
  await using database = await openTestDatabase();
  await using session = await OwnerSession.open(database.connectClient, pino({ level: 'silent' }));
  const signal = AbortSignal.timeout(10_000);
  let looks = 0;
  session.onFinish(() => looks++);
  let isSecondAwake = false;
  const first = session.nextFinish('op-first', signal);
  const second = session.nextFinish('op-second', signal).then(() => {
    isSecondAwake = true;
  });
  session.hear({ channel: FINISHED_CHANNEL, payload: 'op-first' });
  await expect(first).resolves.toBeUndefined();
  expect(isSecondAwake).toBe(false);
  const third = session.nextFinish('op-third', signal);
  session.missed();
  await expect(Promise.all([second, third])).resolves.toBeDefined();
  expect(looks).toBe(2);
});

it('ends although the server does not answer any more', async () => {
  await using database = await openTestDatabase();
  const socket = new Socket();
  const client = new Client({ ...database.connection, stream: () => socket });
  const session = await OwnerSession.open(() => client.connect().then(() => client), pino({ level: 'silent' }));
  // Nothing reaches it from here on, not even that this side is done.
  socket.write = (_: unknown, ...rest: unknown[]) => {
    const done = rest.at(-1);
    if (typeof done === 'function') done();
    return true;
  };
  socket.end = () => socket;
  await session[Symbol.asyncDispose]();
  expect(socket.destroyed).toBe(true);
});
