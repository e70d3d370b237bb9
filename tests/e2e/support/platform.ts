import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePorts } from '@wrenn/config/free-port';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { ensureGuestImages } from '@wrenn/guest-image/build';
import { until } from '@wrenn/testing/until';

const REPOSITORY = join(import.meta.dirname, '..', '..', '..');

/** One program of the platform as a process of its own, which a test may kill and start again. */
export class Program {
  #child: ChildProcess | undefined;
  readonly #command: readonly [string, ...string[]];
  readonly #env: Readonly<Record<string, string>>;
  readonly logFile: string;

  constructor(command: readonly [string, ...string[]], env: Readonly<Record<string, string>>, logFile: string) {
    this.#command = command;
    this.#env = env;
    this.logFile = logFile;
  }

  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error(`${this.#command.join(' ')} does not run`);
    return this.#child.pid;
  }

  start(): void {
    const log = openSync(this.logFile, 'a');
    const [program, ...args] = this.#command;
    this.#child = spawn(program, args, {
      env: { ...process.env, ...this.#env },
      stdio: ['ignore', log, log],
    });
    closeSync(log);
  }

  /** Undefined while it runs, and where a signal ended it. */
  get exitCode(): number | undefined {
    return this.#child?.exitCode ?? undefined;
  }

  /** Whether it was started and has ended by itself. */
  get hasEnded(): boolean {
    return this.#child !== undefined && (this.#child.exitCode !== null || this.#child.signalCode !== null);
  }

  /** Kills it and starts it again at once. */
  async restart(): Promise<void> {
    await this.end('SIGKILL');
    this.start();
  }

  get isRunning(): boolean {
    return this.#child !== undefined && !this.hasEnded;
  }

  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    await once(child, 'exit');
  }
}

/** A whole platform with a WRENN_DIR of its own; kernels and images are shared with the machine's. */
export interface Platform extends AsyncDisposable {
  readonly dir: string;
  readonly baseUrl: string;
  readonly apiKey: string;
  readonly agent: Program;
  readonly controlPlane: Program;
  /** Waits until the control plane says that it and its host are ready. */
  ready(): Promise<void>;
  /** Calls the API and parses its JSON. Does not throw for error statuses. */
  call(method: string, path: string, body?: unknown): Promise<{ status: number; body: unknown }>;
}

function source(app: string): [string, string] {
  return [process.execPath, join(REPOSITORY, 'apps', app, 'src', 'main.ts')];
}

/**
 * A temporary WRENN_DIR that shares kernels and images with the machine's.
 *
 * @param parent the folder that it is made in
 */
export async function temporaryWrennDir(parent = tmpdir()): Promise<string> {
  const shared = wrennDir(process.env.WRENN_DIR ?? '/var/lib/wrenn');
  await ensureGuestImages({ wrennDir: shared, onProgress: () => undefined });
  const dir = await mkdtemp(join(parent, 'wrenn-'));
  // Programs that dropped their privileges pass through.
  await chmod(dir, 0o711);
  const paths = wrennDir(dir);
  await symlink(shared.kernels, paths.kernels);
  await symlink(shared.images, paths.images);
  await mkdir(paths.logs);
  return dir;
}

export interface PlatformOptions {
  /** Set for both programs, over the test's own environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Commands to start instead of the sources. */
  readonly programs?: { readonly agent: readonly [string]; readonly controlPlane: readonly [string] };
  /** Folder that the WRENN_DIR is made in. */
  readonly parent?: string;
}

export async function startPlatform({ env = {}, programs, parent }: PlatformOptions = {}): Promise<Platform> {
  const dir = await temporaryWrennDir(parent);
  const paths = wrennDir(dir);
  const [apiPort, agentPort] = await freePorts(2);
  const baseUrl = `http://127.0.0.1:${apiPort}`;
  const common = {
    WRENN_DIR: dir,
    WRENN_CP_LISTEN_ADDR: `127.0.0.1:${apiPort}`,
    WRENN_HOST_LISTEN_ADDR: `127.0.0.1:${agentPort}`,
    CP_HOST_AGENT_ADDR: `https://127.0.0.1:${agentPort}`,
    LOG_LEVEL: 'debug',
    // Filling it takes CPU that a test may be measuring, and it hides how VMs are started.
    WRENN_WARM_POOL_MAX_MB: '0',
    ...env,
  };
  const agent = new Program(programs?.agent ?? source('host-agent'), common, join(paths.logs, 'agent.log'));
  const controlPlane = new Program(
    programs?.controlPlane ?? source('control-plane'),
    common,
    join(paths.logs, 'cp.log'),
  );

  const ready = async () => {
    await until('the platform is ready', 120_000, async () => {
      const answer = await fetch(`${baseUrl}/ready`).catch(() => undefined);
      return answer?.ok === true;
    });
  };
  const headers: Record<string, string> = {};
  const call = async (method: string, path: string, body?: unknown) => {
    const answer = await fetch(`${baseUrl}${path}`, {
      method,
      headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    return { status: answer.status, body: text === '' ? undefined : JSON.parse(text) };
  };
  const dispose = async () => {
    if (headers['x-api-key'] && controlPlane.isRunning) {
      const { body } = await call('GET', '/v1/capsules');
      for (const { id } of body as { id: string }[]) await call('DELETE', `/v1/capsules/${id}`);
    }
    await controlPlane.end('SIGTERM');
    await agent.end('SIGTERM');
    await rm(dir, { recursive: true, force: true });
  };

  agent.start();
  controlPlane.start();
  try {
    await ready();
    const apiKey = (await readFile(paths.apiKeyFile, 'utf8')).trim();
    headers['x-api-key'] = apiKey;
    return { dir, baseUrl, apiKey, agent, controlPlane, ready, call, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    const logs = await Promise.all([agent, controlPlane].map((p) => readFile(p.logFile, 'utf8').catch(() => '')));
    await dispose();
    throw new Error(`the platform did not start\n${logs.map((log) => log.slice(-4000)).join('\n')}`, { cause: error });
  }
}
