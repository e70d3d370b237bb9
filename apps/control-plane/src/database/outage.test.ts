import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { sql } from 'drizzle-orm';
import { Client, DatabaseError } from 'pg';
import { expect, it } from 'vitest';
import { openTestDatabase } from '../testing/test-database.ts';
import { ConnectionPool } from './connection-pool.ts';
import { isDatabaseOutage } from './database.ts';
import { openPooledDb } from './transactions.ts';

async function errorOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => undefined,
    (error: unknown) => error,
  );
}

it('counts a database that takes no connections as an outage, and other wrong states not', async () => {
  await using database = await openTestDatabase();
  const { db, pool } = database;
  const {
    rows: [current],
  } = await db.execute<{ name: string }>(sql`SELECT current_database() AS name`);
  const sequence = await errorOf(
    db.transaction(async (tx) => {
      await tx.execute(sql`CREATE TEMPORARY SEQUENCE unused`);
      await tx.execute(sql`SELECT currval('unused')`);
    }),
  );
  expect(sequence).toMatchObject({ cause: { code: '55000' } });
  expect(isDatabaseOutage(sequence)).toBe(false);

  const url = pool.options.connectionString ?? '';
  const admin = new Client(adminUrl(url));
  await admin.connect();
  try {
    await admin.query(`ALTER DATABASE ${current?.name} ALLOW_CONNECTIONS false`);
    await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [current?.name]);
    const refused = await errorOf(database.connectClient());
    expect(refused).toBeInstanceOf(DatabaseError);
    expect(refused).toMatchObject({ code: '55000' });
    expect(isDatabaseOutage(refused)).toBe(true);
  } finally {
    await admin.query(`ALTER DATABASE ${current?.name} ALLOW_CONNECTIONS true`);
    await admin.end();
  }
});

it('counts a connection that breaks before its session has begun as an outage', async () => {
  await using server = new ResettingServer();
  await using pool = new ConnectionPool({ connectionString: await server.listen() }, () => undefined);
  const db = openPooledDb(pool, isDatabaseOutage);
  const error = await errorOf(db.transaction((tx) => tx.execute(sql`SELECT 1`)));
  expect(error).toMatchObject({ code: 'ECONNRESET' });
  expect(isDatabaseOutage(error)).toBe(true);
});

/** Takes connections, as a server does that is just ending, and breaks them. */
class ResettingServer implements AsyncDisposable {
  readonly #server = createServer((socket) => socket.once('data', () => socket.resetAndDestroy()));

  async listen(): Promise<string> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return `postgres://wrenn@127.0.0.1:${(this.#server.address() as AddressInfo).port}/wrenn`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    await once(this.#server, 'close');
  }
}

function adminUrl(url: string): string {
  return url.replace(/^(postgres(?:ql)?:\/\/[^/?]*)(\/[^?]*)?/, '$1/postgres');
}
