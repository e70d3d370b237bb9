import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { pino } from 'pino';
import { type Database, openDatabase } from '../database/database.ts';
import { startEmbeddedServer } from '../postgres/embedded-server.ts';

const log = pino({ level: 'silent' });

/** An empty database of its own on a server that all tests share. Disposing it drops it. */
export interface TestDatabase extends AsyncDisposable {
  readonly url: string;
}

/**
 * Makes a database on the server that DATABASE_URL names, else on an embedded one that the first test starts, the
 * others take over, and the last one stops.
 */
export async function createTestDatabase(): Promise<TestDatabase> {
  const given = process.env.DATABASE_URL;
  const server = given ? undefined : await startSharedServer();
  const adminUrl = given ?? toUrl(server?.address ?? { host: '', user: '' }, 'postgres');
  const name = `wrenn_test_${randomBytes(6).toString('hex')}`;
  // Held to the end: as long as one client is there, nobody else stops the server.
  const admin = new Client(adminUrl);
  await admin.connect();
  await admin.query(`CREATE DATABASE ${name}`);
  return {
    url: server ? toUrl(server.address, name) : Object.assign(new URL(adminUrl), { pathname: `/${name}` }).href,
    [Symbol.asyncDispose]: async () => {
      await admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
      await admin.end();
      await server?.stop();
    },
  };
}

/** A migrated database, open. */
export async function openTestDatabase(): Promise<Database> {
  const made = await createTestDatabase();
  const database = await openDatabase({ url: made.url, dir: tmpdir(), log });
  return {
    ...database,
    [Symbol.asyncDispose]: async () => {
      await database[Symbol.asyncDispose]();
      await made[Symbol.asyncDispose]();
    },
  };
}

async function startSharedServer() {
  const dir = join(tmpdir(), `wrenn-test-postgres-${process.getuid?.() ?? 0}`);
  return startEmbeddedServer({ dir, log, durable: false });
}

function toUrl({ host, user }: { host: string; user: string }, database: string): string {
  return `postgres://${user}@/${database}?host=${encodeURIComponent(host)}`;
}
