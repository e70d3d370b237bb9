import { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { until } from '@wrenn/testing/until';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../testing/test-database.ts';
import { ConnectionPool } from './connection-pool.ts';

let database: TestDatabase;
let broken: Error[];
let sockets: Socket[];
beforeEach(async () => {
  database = await createTestDatabase();
  broken = [];
  sockets = [];
});
afterEach(() => database[Symbol.asyncDispose]());

function openPool(leaveTimeoutMs?: number): ConnectionPool {
  const stream = () => {
    const socket = new Socket();
    sockets.push(socket);
    return socket;
  };
  return new ConnectionPool({ connectionString: database.url, stream }, (error) => broken.push(error), leaveTimeoutMs);
}

const endBackends = (by: ConnectionPool) =>
  by.query(`
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()`);

it('has ended when its connections have', async () => {
  const pool = openPool(30_000);
  await pool.query('SELECT 1');
  for (const socket of sockets) socket.cork();
  const ending = pool[Symbol.asyncDispose]();
  expect(await Promise.race([ending.then(() => 'ended'), delay(200, 'ending')])).toBe('ending');
  for (const socket of sockets) socket.uncork();
  await ending;
  expect(sockets.map(({ readableEnded }) => readableEnded)).toEqual([true]);
});

it('does not wait for ever, and says nothing of what breaks then', async () => {
  const pool = openPool(50);
  await pool.query('SELECT 1');
  const closed = sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve)));
  for (const socket of sockets) socket.cork();
  await pool[Symbol.asyncDispose]();
  await using other = openPool();
  await endBackends(other);
  for (const socket of sockets) socket.uncork();
  await Promise.all(closed);
  expect(broken).toEqual([]);
});

it('tells of an idle connection that breaks, fails what runs on another, and goes on', async () => {
  await using pool = openPool();
  await using other = openPool();
  const client = await pool.connect();
  const work = client.query('SELECT pg_sleep(60)');
  const failed = expect(work).rejects.toMatchObject({ code: '57P01' });
  await pool.query('SELECT 1');
  await endBackends(other);
  await failed;
  client.release(true);
  await until('it is told', () => broken.length > 0);
  expect(broken).toMatchObject([{ code: '57P01' }]);
  expect((await pool.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});
