import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from '@wrenn/config/free-port';
import { createTestDatabase } from '@wrenn/control-plane/testing/test-database';
import { type HostBody, hostSchema } from '@wrenn/protocol/rest/hosts';
import { until } from '@wrenn/testing/until';
import { Program } from './platform.ts';

const MAIN = join(import.meta.dirname, '..', '..', '..', 'apps', 'control-plane', 'src', 'main.ts');
const EMAIL = 'root@example.com';
const PASSWORD = 'correct horse battery';

/** wrenn-cp as a process of its own, with a database of its own, an administrator, and no host. */
export class LoneControlPlane implements AsyncDisposable {
  readonly port: number;
  readonly #program: Program;
  readonly #stack: AsyncDisposableStack;
  #adminToken = '';

  private constructor(port: number, program: Program, stack: AsyncDisposableStack) {
    this.port = port;
    this.#program = program;
    this.#stack = stack;
  }

  /**
   * @param folder for its WRENN_DIR and its log
   * @param listenVariable that tells it where to listen
   */
  static async start(folder: string, listenVariable = 'WRENN_CP_LISTEN_ADDR'): Promise<LoneControlPlane> {
    await using stack = new AsyncDisposableStack();
    const { url } = stack.use(await createTestDatabase());
    const dir = join(folder, 'control-plane');
    await mkdir(dir);
    const port = await freePort();
    const env = {
      ...{ WRENN_DIR: dir, DATABASE_URL: url, CP_HOST_AGENT_ADDR: 'none', WRENN_CP_LISTEN_ADDR: '' },
      [listenVariable]: `127.0.0.1:${port}`,
    };
    const program = new Program([process.execPath, MAIN], env, join(folder, 'control-plane.log'));
    stack.defer(() => program.end('SIGTERM'));
    program.start();
    const started = new LoneControlPlane(port, program, stack.move());
    try {
      await until('the control plane answers', 60_000, async () => {
        await started.requireRunning();
        return (await fetch(`${started.baseUrl}/health`).catch(() => undefined))?.ok === true;
      });
      await started.#addAdmin(env);
      return started;
    } catch (error) {
      await started[Symbol.asyncDispose]();
      throw error;
    }
  }

  get baseUrl(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Of a login. */
  get adminToken(): string {
    return this.#adminToken;
  }

  /** Where it has ended everything else fails too, and says nothing of why. */
  async requireRunning(): Promise<void> {
    if (this.#program.hasEnded) {
      throw new Error(`the control plane ended:\n${await readFile(this.#program.logFile, 'utf8')}`);
    }
  }

  async host(id: string): Promise<HostBody> {
    await this.requireRunning();
    // Whoever asks all the time must not keep the programs from their work.
    await delay(100);
    const answer = await fetch(`${this.baseUrl}/v1/hosts/${id}`, {
      headers: { authorization: `Bearer ${this.#adminToken}` },
      signal: AbortSignal.timeout(30_000),
    });
    return hostSchema.parse(await answer.json());
  }

  async #addAdmin(env: Readonly<Record<string, string>>): Promise<void> {
    const admin = spawn(process.execPath, [MAIN, 'admin', 'create', EMAIL, '--password-stdin'], {
      env: { ...process.env, ...env },
    });
    admin.stdin.end(`${PASSWORD}\n`);
    const [problem] = await Promise.all([text(admin.stderr), once(admin, 'close')]);
    if (admin.exitCode !== 0) throw new Error(`no administrator: ${problem}`);
    const login = await fetch(`${this.baseUrl}/v1/auth/login`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ email: EMAIL, password: PASSWORD }),
    });
    ({ token: this.#adminToken } = (await login.json()) as { token: string });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}
