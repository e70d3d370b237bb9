import { WrennError } from '@wrenn/protocol/errors';
import { DrizzleQueryError } from 'drizzle-orm/errors';
import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import { Client, type ClientConfig, DatabaseError, type Pool } from 'pg';
import type { Logger } from 'pino';
import { startEmbeddedServer } from '../postgres/embedded-server.ts';
import { ConnectionPool } from './connection-pool.ts';
import { migrate } from './migrate.ts';
import type * as schema from './schema.ts';
import { openPooledDb } from './transactions.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const STATEMENT_TIMEOUT_MS = 30_000;
/** As long as a statement may hold the connection that a request waits for. */
const POOL_TIMEOUT_MS = STATEMENT_TIMEOUT_MS;
const POOL_SIZE = 10;

export type Db = NodePgDatabase<typeof schema>;

/** The database of a control plane. Disposing it closes its connections, and stops the server where that is ours. */
export interface Database extends AsyncDisposable {
  readonly db: Db;
  /** What `db` is over. */
  readonly pool: Pool;
  /** How to connect, for what keeps a pool of its own. */
  readonly connection: ClientConfig;
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
  const startAgain = () => {
    embedded?.ensureRunning().catch((err: unknown) => log.error({ err }, 'PostgreSQL does not start again'));
  };
  const connectClient = async () => {
    const client = new Client(config);
    // Until the caller listens: a connection that breaks right after it was made must not end the process.
    client.on('error', () => undefined);
    try {
      await client.connect();
      return client;
    } catch (error) {
      startAgain();
      throw error;
    }
  };
  // The pool makes a new connection when it is needed; the embedded server may need a start first.
  const pool = new ConnectionPool(
    {
      ...{ ...config, connectionTimeoutMillis: POOL_TIMEOUT_MS },
      ...{ max: POOL_SIZE, statement_timeout: STATEMENT_TIMEOUT_MS },
    },
    (err) => {
      log.warn({ err }, 'lost a database connection');
      startAgain();
    },
  );
  try {
    await runMigrations(connectClient, log);
  } catch (error) {
    await pool[Symbol.asyncDispose]();
    await embedded?.stop();
    throw error;
  }
  return {
    db: openPooledDb(pool, isDatabaseOutage),
    pool,
    connection: config,
    connectClient,
    check: async (signal) => {
      const aborted = new Promise<never>((_, reject) => {
        // An answer that came while this program stood still is read first.
        signal.addEventListener('abort', () => setImmediate(() => reject(signal.reason)), { once: true });
      });
      try {
        await Promise.race([pool.query('SELECT 1'), aborted]);
      } catch (cause) {
        throw new WrennError('database_unavailable', {}, { cause });
      }
    },
    [Symbol.asyncDispose]: async () => {
      await pool[Symbol.asyncDispose]();
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
    // Classes of SQLSTATE: 08 connection, 53 resources, 57P operator intervention; 57014 is the time limit of a statement.
    // 55000 means many things; these routines use it where a session begins, in a database that takes no connections.
    if (cause.code === '55000') return /^(CheckMyDatabase|InitPostgres)$/.test(cause.routine ?? '');
    return /^(08|53|57P|57014)/.test(cause.code ?? '');
  }
  // A transaction that did not even begin: what the driver says is not wrapped.
  return error instanceof DrizzleQueryError || isLostConnection(error);
}

/** As the driver, or the system below it, names a connection that could not be made or broke. */
function isLostConnection(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (
    syscall === 'connect' &&
    ['ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'ETIMEDOUT', 'EHOSTUNREACH'].includes(code ?? '')
  )
    return true;
  // Broken before its session began: later the driver says "Connection terminated".
  if ((syscall === 'read' || syscall === 'write') && (code === 'ECONNRESET' || code === 'EPIPE')) return true;
  return /^(Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error)/.test(
    error.message,
  );
}

/** Whether the database refused what it cannot hold: a NUL, half a surrogate pair, a day that there is not. */
export function isRefusedData(error: unknown): boolean {
  const cause = error instanceof DrizzleQueryError ? error.cause : error;
  // Codes of SQLSTATE: character not in repertoire, untranslatable character, a JSON text with either; dates.
  return cause instanceof DatabaseError && ['22021', '22P05', '22P02', '22007', '22008'].includes(cause.code ?? '');
}

/** Whether the error is the violation of that unique index. */
export function isUniqueViolation(error: unknown, index: string): boolean {
  const cause = error instanceof DrizzleQueryError ? error.cause : error;
  return cause instanceof DatabaseError && cause.code === '23505' && cause.constraint === index;
}
