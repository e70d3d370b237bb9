import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient } from '@redis/client';
import { quietPort } from '@wrenn/testing/quiet-port';
import { until } from '@wrenn/testing/until';

/** Debian's package redis-tools has the server under this name, and no service that starts: its name decides what it is. */
const PROGRAM = '/usr/bin/redis-check-rdb';
const START_TIMEOUT_MS = 30_000;

/** A server of the distribution's Redis on a loopback port, with its files in a temporary folder. */
export class RedisServer implements AsyncDisposable {
  readonly url: string;
  readonly #port: number;
  readonly #dir: string;
  readonly #settings: readonly string[];
  #child: ChildProcess | undefined;

  private constructor(port: number, dir: string, settings: readonly string[]) {
    this.url = `redis://127.0.0.1:${port}`;
    this.#port = port;
    this.#dir = dir;
    this.#settings = settings;
  }

  /** @param settings of the server, as its command line takes them; by default it keeps nothing on the disk */
  static async start(...settings: readonly string[]): Promise<RedisServer> {
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-redis-'));
    const server = new RedisServer(await quietPort(), dir, settings);
    try {
      await server.start();
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Starts it again after it was killed. Resolves when it answers. */
  async start(): Promise<void> {
    const child = spawn(
      PROGRAM,
      [
        ...['--port', String(this.#port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'],
        ...['--dir', this.#dir, ...this.#settings],
      ],
      { argv0: 'redis-server', stdio: 'ignore', cwd: this.#dir },
    );
    this.#child = child;
    let problem: unknown;
    child.once('error', (error) => {
      problem = new Error('Redis does not start; scripts/setup.sh installs it', { cause: error });
    });
    child.once('exit', (code) => {
      problem ??= new Error(`Redis ended with ${code}`);
    });
    await until('Redis answers', START_TIMEOUT_MS, async () => {
      if (problem) throw problem;
      return this.ask('PING').catch((error: unknown) => String(error).includes('NOAUTH'));
    });
  }

  /** As a crash does it. Resolves when it is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null || child.pid === undefined) return;
    const ended = once(child, 'exit');
    // One that was halted ends too.
    child.kill('SIGKILL');
    await ended;
  }

  /** From now on it takes connections and answers nothing. */
  halt(): void {
    this.#child?.kill('SIGSTOP');
  }

  goOn(): void {
    this.#child?.kill('SIGCONT');
  }

  /** One command on a connection of its own. */
  async ask(...command: readonly string[]): Promise<unknown> {
    const client = createClient({ url: this.url, socket: { reconnectStrategy: false } });
    client.on('error', () => undefined);
    try {
      await client.connect();
      return await client.sendCommand(command);
    } finally {
      if (client.isOpen) client.destroy();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await rm(this.#dir, { recursive: true, force: true });
  }
}
