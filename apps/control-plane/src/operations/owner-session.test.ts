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
