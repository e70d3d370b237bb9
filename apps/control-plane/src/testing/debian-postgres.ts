import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync } from 'node:fs';
import { chown, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { until } from '@wrenn/testing/until';
import { Client } from 'pg';

const run = promisify(execFile);
const COMMAND_TIMEOUT_MS = 60_000;
const FIRST_MAJOR = 15;

/** Folder of the programs of the distribution's PostgreSQL, its oldest version from 15 on; undefined: none is installed. */
export function findDebianPostgres(): string | undefined {
  const majors = globSync('/usr/lib/postgresql/*/bin/postgres')
    .map((path) => Number(path.split('/').at(-3)))
    .filter((major) => major >= FIRST_MAJOR);
  return majors.length === 0 ? undefined : `/usr/lib/postgresql/${Math.min(...majors)}/bin`;
}

/** How a server is told to end: `fast` lets go of its clients in order, `immediate` is as good as a crash. */
export type StopMode = 'fast' | 'immediate';

/** A server of the distribution's own on a Unix socket in a temporary folder. No service is started. */
export class DebianPostgres implements AsyncDisposable {
  readonly url: string;
  readonly #dir: string;
  readonly #bin: string;
  readonly #user: { uid: number; gid: number } | undefined;
  #stop: ((mode: StopMode) => Promise<void>) | undefined;

  private constructor(dir: string, bin: string, user: { uid: number; gid: number } | undefined) {
    this.#dir = dir;
    this.#bin = bin;
    this.#user = user;
    this.url = `postgres://postgres@/postgres?host=${encodeURIComponent(dir)}`;
  }

  /** @throws Error when none is installed */
  static async start(): Promise<DebianPostgres> {
    const bin = findDebianPostgres();
    if (!bin) throw new Error('no PostgreSQL of the distribution is installed');
    // PostgreSQL refuses to run as root.
    const user = process.getuid?.() === 0 ? await postgresUser() : undefined;
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-debian-pg-'));
    if (user) await chown(dir, user.uid, user.gid);
    const server = new DebianPostgres(dir, bin, user);
    try {
      await run(
        join(bin, 'initdb'),
        [
          '--pgdata',
          join(dir, 'data'),
          '--username',
          'postgres',
          '--auth',
          'trust',
          '--no-sync',
          '--locale',
          'C.UTF-8',
        ],
        { ...user, cwd: dir, timeout: COMMAND_TIMEOUT_MS },
      );
      await server.start();
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  get version(): string {
    return this.#bin.split('/').at(-2) ?? '';
  }

  /** Starts it again after a stop. Resolves when it takes connections. */
  async start(): Promise<void> {
    const settings = { listen_addresses: '', unix_socket_directories: this.#dir, fsync: 'off', max_connections: '300' };
    const child = spawn(
      join(this.#bin, 'postgres'),
      [
        '-D',
        join(this.#dir, 'data'),
        ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
      ],
      { ...this.#user, cwd: this.#dir, stdio: 'ignore' },
    );
    const ended = once(child, 'exit');
    this.#stop = async (mode) => {
      child.kill(mode === 'fast' ? 'SIGINT' : 'SIGQUIT');
      await ended;
    };
    await until('PostgreSQL takes connections', COMMAND_TIMEOUT_MS, () => this.#answers());
  }

  /** Resolves when it is gone. */
  async stop(mode: StopMode): Promise<void> {
    await this.#stop?.(mode);
    this.#stop = undefined;
  }

  async #answers(): Promise<boolean> {
    if (!existsSync(join(this.#dir, '.s.PGSQL.5432'))) return false;
    const client = new Client(this.url);
    client.on('error', () => undefined);
    try {
      await client.connect();
      return true;
    } catch {
      return false;
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop('immediate');
    await rm(this.#dir, { recursive: true, force: true });
  }
}

/** The user that Debian's package makes. */
async function postgresUser(): Promise<{ uid: number; gid: number }> {
  const { stdout } = await run('getent', ['passwd', 'postgres'], { timeout: COMMAND_TIMEOUT_MS });
  const [, , uid, gid] = stdout.split(':');
  return { uid: Number(uid), gid: Number(gid) };
}
