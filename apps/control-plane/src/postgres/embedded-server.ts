import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, openSync, watch } from 'node:fs';
import { mkdir, readdir, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import type { Logger } from 'pino';
import { DATABASE_USER, ensureCluster, ensureSocketDir } from './cluster.ts';
import { acquireMachineLock } from './machine-lock.ts';
import { countClients, findPostmaster, findServerProcesses } from './postmaster.ts';
import { ensurePrograms, type PostgresPrograms } from './programs.ts';
import { ensureServerUser, type SystemUser } from './system-user.ts';

const READY_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 30_000;
/** How long closed connections may still be served, on a busy machine. */
const LEAVE_TIMEOUT_MS = 3000;
const LOCK_TIMEOUT_MS = 180_000;
/** sockaddr_un holds 107 characters and a NUL; the server adds "/.s.PGSQL.5432". */
const MAX_SOCKET_DIR_LENGTH = 90;
/** Only names the socket's file: no TCP port is opened. */
const PORT = 5432;

export interface EmbeddedServerOptions {
  /** WRENN_DIR. */
  readonly dir: string;
  readonly log: Logger;
  /** False only in tests: commits need not reach the disk. */
  readonly durable?: boolean;
}

/** How to connect to the server. */
export interface ServerAddress {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
}

/** A running PostgreSQL that belongs to a WRENN_DIR. */
export interface EmbeddedServer {
  readonly address: ServerAddress;
  /** Starts the server again when it has ended by itself. Resolves when it takes connections. */
  ensureRunning(): Promise<void>;
  /** Ends the server in an orderly way and waits until it is gone, unless another control plane still uses it. */
  stop(): Promise<void>;
}

/**
 * Starts PostgreSQL on `{WRENN_DIR}/postgres/data`, under its own user and on a Unix socket only. The server is a
 * process of its own session: it outlives a control plane that was killed, and the next one takes it over.
 */
export async function startEmbeddedServer(options: EmbeddedServerOptions): Promise<EmbeddedServer> {
  const root = wrennDir(options.dir);
  await mkdir(root.root, { recursive: true, mode: 0o711 });
  await mkdir(root.postgres, { recursive: true, mode: 0o711 });
  await mkdir(root.logs, { recursive: true, mode: 0o755 });
  const base = await realpath(root.postgres);
  const dataDir = dataDirIn(base);
  const socketDir = socketDirFor(base);
  const prepare = async (): Promise<ServerFiles> => {
    const [programs, user] = await Promise.all([ensurePrograms(base), ensureServerUser()]);
    await ensureCluster(dataDir, programs, user);
    await ensureSocketDir(socketDir, user);
    return { programs, user, dataDir, socketDir, logFile: join(root.logs, 'postgres.log'), ...options };
  };
  const server = await locked(base, async () => {
    const prepared = await prepare();
    await bringUp(prepared);
    return prepared;
  });
  let starting: Promise<void> | undefined;
  return {
    address: { host: socketDir, port: PORT, user: DATABASE_USER, database: 'postgres' },
    ensureRunning: () => {
      starting ??= locked(base, () => bringUp(server)).finally(() => {
        starting = undefined;
      });
      return starting;
    },
    stop: () => stopUnused(base, options.log),
  };
}

/** Ends the server of a WRENN_DIR, where there is one and nobody is connected to it. */
export async function stopEmbeddedServer(dir: string, log: Logger): Promise<void> {
  const base = await realpath(wrennDir(dir).postgres).catch(() => undefined);
  if (base) await stopUnused(base, log);
}

function stopUnused(base: string, log: Logger): Promise<void> {
  return locked(base, async () => {
    const clients = await countLastingClients(dataDirIn(base));
    if (clients > 0) log.info({ clients }, 'leaving PostgreSQL to its other clients');
    else await stopServer(dataDirIn(base), log);
  });
}

/** Of all control planes of a WRENN_DIR one at a time starts or ends its server. */
async function locked<T>(base: string, work: () => Promise<T>): Promise<T> {
  await using _lock = await acquireMachineLock(`wrenn-postgres-${shortHash(base)}`, LOCK_TIMEOUT_MS);
  return await work();
}

function dataDirIn(base: string): string {
  return join(base, 'data');
}

interface ServerFiles extends EmbeddedServerOptions {
  readonly programs: PostgresPrograms;
  readonly user: SystemUser | undefined;
  readonly dataDir: string;
  readonly socketDir: string;
  readonly logFile: string;
}

/** The connections of who is just leaving are served for a moment longer. */
async function countLastingClients(dataDir: string): Promise<number> {
  for (const deadline = performance.now() + LEAVE_TIMEOUT_MS; ; await delay(50)) {
    const clients = await countClients(dataDir);
    if (clients === 0 || performance.now() > deadline) return clients;
  }
}

/** Below the base folder, or, where that path is too long for a socket, in a short one named by it. */
function socketDirFor(base: string): string {
  const preferred = join(base, 'run');
  if (preferred.length <= MAX_SOCKET_DIR_LENGTH) return preferred;
  const name = `wrenn-postgres-${shortHash(base)}`;
  return process.getuid?.() === 0 ? `/run/${name}` : join(tmpdir(), name);
}

function shortHash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

async function bringUp(server: ServerFiles): Promise<void> {
  const { dataDir, log } = server;
  const running = await findPostmaster(dataDir);
  if (running && running.socketDir === server.socketDir) {
    if (await staysAndIsReady(dataDir)) {
      log.info({ pid: running.pid }, 'taking over the running PostgreSQL');
      return;
    }
  } else if (running) await stopServer(dataDir, log);
  await clearStale(server);
  await launch(server);
}

/**
 * A killed server leaves the files behind that say it runs. PostgreSQL copes with that unless another process or a
 * zombie has its pid, and looks at shared memory for children of the old server; here both are looked at.
 */
async function clearStale({ dataDir, socketDir }: ServerFiles): Promise<void> {
  const deadline = performance.now() + STOP_TIMEOUT_MS;
  while ((await findServerProcesses(dataDir)).length > 0) {
    if (performance.now() > deadline) throw new Error(`Processes of an earlier PostgreSQL still work in ${dataDir}.`);
    await delay(50);
  }
  await rm(join(dataDir, 'postmaster.pid'), { force: true });
  const sockets = (await readdir(socketDir)).filter((name) => name.startsWith('.s.PGSQL.'));
  await Promise.all(sockets.map((name) => rm(join(socketDir, name), { force: true })));
}

/** Of one server many tests have databases, each with a control plane or two. */
const FOR_TESTS = { max_connections: 400, fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' };

async function launch(server: ServerFiles): Promise<void> {
  const { programs, user, dataDir, logFile, log } = server;
  const settings = {
    listen_addresses: '',
    port: PORT,
    unix_socket_directories: server.socketDir,
    unix_socket_permissions: '0700',
    max_connections: 100,
    shared_buffers: '32MB',
    jit: 'off',
    log_checkpoints: 'off',
    ...(server.durable === false ? FOR_TESTS : {}),
  };
  const output = openSync(logFile, 'a', 0o640);
  const child = spawn(
    programs.postgres,
    ['-D', dataDir, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
    {
      ...user,
      cwd: '/',
      env: { LC_ALL: 'C', PATH: '/usr/bin:/bin' },
      detached: true,
      stdio: ['ignore', output, output],
    },
  );
  closeSync(output);
  const ended = new Promise<never>((_, reject) => {
    child.once('error', (cause) => reject(new Error('PostgreSQL could not be started.', { cause })));
    child.once('exit', (code, signal) => {
      log.info({ code, signal }, 'PostgreSQL ended');
      reject(new Error(`PostgreSQL ended with ${signal ?? `status ${code}`}; ${logFile} says why.`));
    });
  });
  // It may well end long after the race below was won.
  ended.catch(() => undefined);
  child.unref();
  await Promise.race([waitUntilReady(dataDir), ended]);
  log.info({ pid: child.pid, version: programs.version }, 'PostgreSQL is ready');
}

/** The server writes "ready" into its pid file; told by the file system, with a slow second look in case it is not. */
async function waitUntilReady(dataDir: string): Promise<void> {
  await waitInDir(dataDir, READY_TIMEOUT_MS, 'PostgreSQL did not get ready', async () => {
    return (await findPostmaster(dataDir))?.ready === true;
  });
}

/** One that was found may be about to end: then it is waited for until it is gone. */
async function staysAndIsReady(dataDir: string): Promise<boolean> {
  let isReady = false;
  await waitInDir(dataDir, READY_TIMEOUT_MS, 'PostgreSQL neither got ready nor ended', async () => {
    const found = await findPostmaster(dataDir);
    isReady = found?.ready === true;
    return isReady || !found;
  });
  return isReady;
}

async function stopServer(dataDir: string, log: Logger): Promise<void> {
  const gone = async () => (await findPostmaster(dataDir)) === undefined;
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) {
    const postmaster = await findPostmaster(dataDir);
    if (!postmaster) return;
    // SIGINT rolls back what is open and writes a checkpoint; SIGQUIT leaves that to the next start.
    process.kill(postmaster.pid, signal);
    try {
      await waitInDir(dataDir, STOP_TIMEOUT_MS, `PostgreSQL did not end on ${signal}`, gone);
      return;
    } catch (error) {
      log.warn({ err: error }, 'stopping PostgreSQL');
    }
  }
  throw new Error('PostgreSQL did not end.');
}

async function waitInDir(
  dir: string,
  timeoutMs: number,
  failure: string,
  holds: () => Promise<boolean>,
): Promise<void> {
  const watcher = watch(dir);
  const deadline = performance.now() + timeoutMs;
  try {
    while (!(await holds())) {
      if (performance.now() > deadline) throw new Error(`${failure} within ${timeoutMs} ms.`);
      const changed = new AbortController();
      const onChange = () => changed.abort();
      watcher.once('change', onChange);
      await delay(100, undefined, { signal: changed.signal }).catch(() => undefined);
      watcher.off('change', onChange);
    }
  } finally {
    watcher.close();
  }
}
