import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { expect, it } from 'vitest';
import { openTestDatabase } from '../testing/test-database.ts';
import { type OperationHandlers, OperationRunner } from './operation-runner.ts';
import { OwnerSession } from './owner-session.ts';

it('is left by who waits for an operation while the database is slow', async () => {
  await using database = await openTestDatabase();
  const log = pino({ level: 'silent' });
  await using session = await OwnerSession.open(database.connectClient, log);
  await using runner = new OperationRunner(database.db, session, {} as OperationHandlers, log);
  const client = await database.connectClient();
  await client.query('BEGIN');
  await client.query('LOCK TABLE operations IN ACCESS EXCLUSIVE MODE');
  const leave = new AbortController();
  const waiting = runner.wait('op-1', leave.signal).then(
    () => 'waited',
    () => 'left',
  );
  leave.abort();
  // A rejection that nobody has taken by now ends the process.
  await delay(50);
  await client.end();
  expect(await waiting).toBe('left');
});
