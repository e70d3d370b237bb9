import { pino } from 'pino';
import { expect, it } from 'vitest';
import { openTestDatabase } from '../testing/test-database.ts';
import { FINISHED_CHANNEL, OWNER_LOCK_CLASS } from './operation-store.ts';
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
  const session = await OwnerSession.open(database.connectClient, pino({ level: 'silent' }));
  const { rows } = await database.pool.query<{ pid: number }>(
    `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = $1 AND objid::bigint = $2`,
    [OWNER_LOCK_CLASS, session.owner],
  );
  const [server] = rows;
  if (!server) throw new Error('it holds no lock');
  process.kill(server.pid, 'SIGSTOP');
  try {
    await session[Symbol.asyncDispose]();
  } finally {
    process.kill(server.pid, 'SIGCONT');
  }
});
