import { WrennError } from '@wrenn/protocol/errors';
import { DrizzleQueryError } from 'drizzle-orm/errors';
import { drizzle, type NodePgDatabase } from 'drizzle-orm/node-postgres';
import { Client, type ClientConfig, DatabaseError, Pool } from 'pg';
import type { Logger } from 'pino';
import { startEmbeddedServer } from '../postgres/embedded-server.ts';
import { migrate } from './migrate.ts';
import * as schema from './schema.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const STATEMENT_TIMEOUT_MS = 30_000;
const POOL_SIZE = 10;

export type Db = NodePgDatabase<typeof schema>;

/** The database of a control plane. Disposing it closes its connections, and stops the server where that is ours. */
export interface Database extends AsyncDisposable {
  readonly db: Db;
  /** A connection outside the pool, for what belongs to one session. The caller ends it. */
  connectClient(): Promise<Client>;
  /** Throws `database_unavailable` when it does not answer. */
  check(signal: AbortSignal): Promise<void>;
}

export interface DatabaseOptions {
  /** A server of the user's own; absent: the embedded one. */
  readonly url: string | undefined;
  /** WRENN_DIR. */
  readonly dir: string;
  readonly log: Logger;
  /** False only in tests: commits of the embedded server need not reach the disk. */
  readonly durable?: boolean;
}

/** Connects, starts the embedded server where there is no URL, and brings the schema to its newest version. */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const { url, log } = options;
  const embedded = url === undefined ? await startEmbeddedServer(options) : undefined;
  const config: ClientConfig = {
    ...(embedded ? embedded.address : { connectionString: url }),
    application_name: 'wrenn-cp',
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
  };
  const connectClient = async () => {
    const client = new Client(config);
    await client.connect();
    return client;
  };
  const pool = new Pool({ ...config, max: POOL_SIZE, statement_timeout: STATEMENT_TIMEOUT_MS });
  // An idle connection broke. The pool makes a new one when it is needed; the embedded server may need a start first.
  pool.on('error', (error) => {
    log.warn({ err: error }, 'lost a database connection');
    embedded?.ensureRunning().catch((err: unknown) => log.error({ err }, 'PostgreSQL does not start again'));
  });
  try {
    await runMigrations(connectClient, log);
  } catch (error) {
    await pool.end();
    await embedded?.stop();
    throw error;
  }
  return {
    db: drizzle(pool, { schema }),
    connectClient,
    check: async (signal) => {
      const aborted = new Promise<never>((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      });
      try {
        await Promise.race([pool.query('SELECT 1'), aborted]);
      } catch (cause) {
        throw new WrennError('database_unavailable', {}, { cause });
      }
    },
    [Symbol.asyncDispose]: async () => {
      await pool.end();
      await embedded?.stop();
    },
  };
}

async function runMigrations(connectClient: () => Promise<Client>, log: Logger): Promise<void> {
  const client = await connectClient();
  try {
    const done = await migrate(client);
    if (done.length > 0) log.info({ migrations: done }, 'the database has the newest schema');
  } finally {
    await client.end();
  }
}

/** Whether the error says that the database could not be asked, rather than that it refused what was asked. */
export function isDatabaseOutage(error: unknown): boolean {
  const cause = error instanceof DrizzleQueryError ? error.cause : error;
  if (cause instanceof DatabaseError) {
    // Classes of SQLSTATE: 08 connection, 53 resources, 57P operator intervention.
    return /^(08|53|57P)/.test(cause.code ?? '');
  }
  return error instanceof DrizzleQueryError;
}

/** Whether the error is the violation of that unique index. */
export function isUniqueViolation(error: unknown, index: string): boolean {
  const cause = error instanceof DrizzleQueryError ? error.cause : error;
  return cause instanceof DatabaseError && cause.code === '23505' && cause.constraint === index;
}
