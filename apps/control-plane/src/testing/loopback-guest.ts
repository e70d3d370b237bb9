import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GuestInit } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';

const ENVD = join(import.meta.dirname, '..', '..', '..', 'envd', 'src', 'main.ts');
const ENVD_PORT = 49_983;
/** In each guest's own directory. */
const LEASES = 'leases';
const START_TIMEOUT_MS = 30_000;

/** A real envd on a loopback address of its own, in place of a microVM. */
export class LoopbackGuest implements AsyncDisposable {
  readonly hostIp: string;
  readonly dir: string;
  readonly #envd: ChildProcess;

  private constructor(hostIp: string, dir: string, envd: ChildProcess) {
    this.hostIp = hostIp;
    this.dir = dir;
    this.#envd = envd;
  }

  static async start(init: GuestInit | undefined): Promise<LoopbackGuest> {
    const hostIp = someAddress();
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-loopback-'));
    const envd = spawn(
      process.execPath,
      [ENVD, '--host', hostIp, '--port', String(ENVD_PORT), '--leases', join(dir, LEASES)],
      { stdio: ['ignore', 'ignore', 'pipe'], cwd: dir, env: { ...process.env, HOME: dir } },
    );
    const guest = new LoopbackGuest(hostIp, dir, envd);
    try {
      await untilListening(envd);
      await guest.init(init);
      return guest;
    } catch (error) {
      await guest[Symbol.asyncDispose]();
      throw error;
    }
  }

  get leaseDirectory(): string {
    return join(this.dir, LEASES);
  }

  get isAlive(): boolean {
    return this.#envd.exitCode === null && this.#envd.signalCode === null;
  }

  async init(init: GuestInit | undefined): Promise<void> {
    const answer = await fetch(`http://${this.hostIp}:${ENVD_PORT}/init`, {
      method: 'POST',
      // The second time it is asked for.
      headers: { 'x-access-token': init?.accessToken ?? '' },
      body: JSON.stringify({ accessToken: init?.accessToken, envVars: init?.envs, defaultWorkdir: this.dir }),
      signal: AbortSignal.timeout(START_TIMEOUT_MS),
    });
    if (answer.status !== 204) throw new Error(`/init was answered with ${answer.status}: ${await answer.text()}`);
  }

  /** Lets it stand still, with all its processes' memory, or go on again. */
  freeze(frozen: boolean): void {
    this.#envd.kill(frozen ? 'SIGSTOP' : 'SIGCONT');
  }

  async kill(): Promise<void> {
    if (!this.isAlive) return;
    const exited = once(this.#envd, 'exit');
    const started = await childrenOf(this.#envd);
    this.#envd.kill('SIGKILL');
    await exited;
    // A real guest takes its processes with it. Each leads a group of its own.
    for (const pid of started) endGroup(pid);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    // A process that was just killed may write once more.
    await rm(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** One of eight million, so that the guests of all processes of this machine do not meet. */
function someAddress(): string {
  const [second = 0, third, fourth] = randomBytes(3);
  return `127.${128 + (second % 127)}.${third}.${fourth}`;
}

async function childrenOf({ pid }: ChildProcess): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '');
  return text.split(' ').filter(Boolean).map(Number);
}

function endGroup(leader: number): void {
  try {
    process.kill(-leader, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

async function untilListening(envd: ChildProcess): Promise<void> {
  let output = '';
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const deadline = setTimeout(() => reject(new Error(`envd did not start: ${output}`)), START_TIMEOUT_MS);
  envd.once('exit', () => reject(new Error(`envd ended: ${output}`)));
  // Read to its end: envd would fail when it could not write its log.
  envd.stderr?.on('data', (chunk) => {
    output = (output + chunk).slice(-4096);
    if (output.includes('"listening"')) resolve();
  });
  try {
    await promise;
  } finally {
    clearTimeout(deadline);
  }
}
