import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { pino } from 'pino';
import { type Database, openDatabase } from '../database/database.ts';
import { startEmbeddedServer, stopEmbeddedServer } from '../postgres/embedded-server.ts';
import { acquireMachineLock } from '../postgres/machine-lock.ts';

const log = pino({ level: 'silent' });
const SERVER_DIR = join(tmpdir(), `wrenn-test-postgres-${process.getuid?.() ?? 0}`);
const LOCK_TIMEOUT_MS = 120_000;

/** An empty database of its own on a server that all tests share. Disposing it drops it. */
export interface TestDatabase extends AsyncDisposable {
  readonly url: string;
}

/**
 * Makes a database on the server that DATABASE_URL names, else on an embedded one that the first test starts and the
 * others take over. It ends with the run.
 */
export async function createTestDatabase(): Promise<TestDatabase> {
  const given = process.env.DATABASE_URL;
  const name = `wrenn_test_${randomBytes(6).toString('hex')}`;
  const { admin, server } = given
    ? { admin: await connectTo(given), server: undefined }
    : await locked(async () => {
        const { address } = await startEmbeddedServer({ dir: SERVER_DIR, log, durable: false });
        return { admin: await connectTo(toUrl(address, 'postgres')), server: address };
      });
  await admin.query(`CREATE DATABASE ${name}`);
  return {
    url: server ? toUrl(server, name) : withDatabase(given ?? '', name),
    [Symbol.asyncDispose]: async () => {
      await admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
      await admin.end();
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

/** Ends the server that tests share, unless those of another run still use it. */
export function stopTestServer(): Promise<void> {
  return locked(() => stopEmbeddedServer(SERVER_DIR, log));
}

/** Nobody stops the server between its start and the first connection, which then keeps it. */
async function locked<T>(work: () => Promise<T>): Promise<T> {
  await using _lock = await acquireMachineLock(`wrenn-test-${SERVER_DIR}`, LOCK_TIMEOUT_MS);
  return await work();
}

/** Held as long as its database: while one client is there, nobody stops the server. */
async function connectTo(url: string): Promise<Client> {
  const client = new Client(url);
  // A server that breaks fails the next query, and not every file of tests that holds a database.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** The same server. Not by URL: the form for sockets, "postgres://user@/name?host=/folder", is none of the web's. */
function withDatabase(url: string, database: string): string {
  return url.replace(/^(postgres(?:ql)?:\/\/[^/?]*)(\/[^?]*)?/, `$1/${database}`);
}

function toUrl({ host, user }: { host: string; user: string }, database: string): string {
  return `postgres://${user}@/${database}?host=${encodeURIComponent(host)}`;
}
