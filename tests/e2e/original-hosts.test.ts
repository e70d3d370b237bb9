import { type ExecFileException, execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from '@wrenn/config/free-port';
import { hostWithTokenSchema } from '@wrenn/protocol/rest/hosts';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LoneControlPlane } from './support/lone-control-plane.ts';
import { Program, temporaryWrennDir } from './support/platform.ts';

const APPS = join(import.meta.dirname, '..', '..', 'apps');
const AGENT = join(APPS, 'host-agent', 'src', 'main.ts');
const STOP_TIMEOUT_MS = 60_000;

/** How the documents register a host. They print the same requests, and name variables in two ways. */
const CREATE = `curl -X POST http://localhost:8000/v1/hosts \\
  -H "Authorization: Bearer $JWT_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d '{"type": "regular"}'`;
const RENEW_TOKEN = `curl -X POST http://localhost:8000/v1/hosts/$HOST_ID/token \\
  -H "Authorization: Bearer $JWT_TOKEN"`;

const EARLIER = {
  start: `sudo AGENT_CP_URL=http://cp-host:8000 \\
  ./builds/wrenn-agent \\
  --register <token-from-step-1> \\
  --address 10.0.1.5:50051`,
  startAgain: `sudo AGENT_CP_URL=http://cp-host:8000 \\
  ./builds/wrenn-agent --address 10.0.1.5:50051`,
} as const;
const DOCUMENTS = [
  {
    ...EARLIER,
    name: 'the ones with AGENT_FILES_ROOTDIR',
    configure: (dir: string, listen: string) => ({ AGENT_LISTEN_ADDR: listen, AGENT_FILES_ROOTDIR: dir }),
  },
  {
    ...EARLIER,
    name: 'the ones in which every path has a variable',
    configure: (dir: string, listen: string) => ({ AGENT_LISTEN_ADDR: listen, WRENN_DIR: dir }),
  },
  {
    name: 'the newest one',
    start: `sudo WRENN_CP_URL=http://localhost:8000 \\
  ./builds/wrenn-agent \\
  --register <token-from-step-1> \\
  --address <host-ip>:50051`,
    startAgain: 'sudo ./builds/wrenn-agent --address <host-ip>:50051',
    configure: (dir: string, listen: string) => ({ WRENN_HOST_LISTEN_ADDR: listen, WRENN_DIR: dir }),
  },
] as const;

let work: string;
let controlPlane: LoneControlPlane;
const stack = new AsyncDisposableStack();

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'wrenn-original-'));
  stack.defer(() => rm(work, { recursive: true, force: true }));
  await makePrograms();
  controlPlane = stack.use(await LoneControlPlane.start(work, 'CP_LISTEN_ADDR'));
});

afterAll(() => stack.disposeAsync());

describe.each(DOCUMENTS)('$name', ({ start, startAgain, configure }) => {
  it('register a host as they print it', async () => {
    await using host = await Machine.create(configure);

    // Step 1.
    const made = hostWithTokenSchema.parse(JSON.parse(await curl(CREATE)));
    const { id } = made.host;
    expect(made.host).toMatchObject({ type: 'regular', status: 'pending', address: null });
    expect((Date.parse(made.expires_at) - Date.now()) / 60_000).toBeCloseTo(60, 0);

    // Step 2.
    await host.start(start, made.registration_token);
    const online = await until('the host is online', 60_000, () => onlineHost(id, host));
    expect(online).toMatchObject({ address: host.address, cpu_cores: availableParallelism(), connection: 'inbound' });
    expect(online.arch).toBe(process.arch === 'x64' ? 'amd64' : 'arm64');
    expect(online.memory_mb).toBeGreaterThan(256);
    expect(online.disk_gb).toBeGreaterThan(0);
    expect((await stat(join(host.dir, 'host-token'))).mode & 0o777).toBe(0o600);

    // Step 3.
    await host.stop();
    const before = (await controlPlane.host(id)).last_heartbeat_at;
    await host.start(startAgain);
    const heard = await until('it is heard of again', 60_000, async () => {
      const found = await onlineHost(id, host);
      return found && found.last_heartbeat_at !== before ? found : undefined;
    });
    const next = await until('its next heartbeat', 100_000, async () => {
      const { last_heartbeat_at: at } = await controlPlane.host(id);
      return at === heard.last_heartbeat_at ? undefined : at;
    });
    await host.stop();

    // Step 4: the token is used up, and the machine has nothing that it could go by.
    await host.forget();
    await host.start(start, made.registration_token);
    expect(await host.ended()).toMatch(/was not registered\. .* it was used at /);
    const again = hostWithTokenSchema.parse(JSON.parse(await curl(RENEW_TOKEN, { HOST_ID: id })));
    expect(again.host.id).toBe(id);
    await host.start(start, again.registration_token);
    await until('the host is back', 60_000, async () => {
      const found = await onlineHost(id, host);
      return found && found.last_heartbeat_at !== next;
    });
  });
});

/** What the documents have installed: `./builds/wrenn-agent`, and sudo, which machines of tests do without. */
async function makePrograms(): Promise<void> {
  const programs = {
    'builds/wrenn-agent': `exec '${process.execPath}' '${AGENT}' "$@"`,
    'bin/sudo': 'exec env "$@"',
  };
  for (const [path, line] of Object.entries(programs)) {
    const file = join(work, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, `#!/bin/sh\n${line}\n`);
    await chmod(file, 0o755);
  }
}

/** A command of the documents, with the addresses of this test in the place of theirs. */
function here(command: string): string {
  return command.replaceAll(/(localhost|cp-host):8000/g, `127.0.0.1:${controlPlane.port}`);
}

async function curl(command: string, env: Readonly<Record<string, string>> = {}): Promise<string> {
  await controlPlane.requireRunning();
  return new Promise((resolve, reject) => {
    const shellEnv = { ...process.env, ...env, JWT_TOKEN: controlPlane.adminToken };
    execFile('sh', ['-c', here(command)], { env: shellEnv }, (error: ExecFileException | null, stdout, stderr) => {
      if (error) reject(new Error(stderr, { cause: error }));
      else resolve(stdout);
    });
  });
}

async function onlineHost(id: string, machine: Machine) {
  await machine.requireRunning();
  const host = await controlPlane.host(id);
  return host.status === 'online' ? host : undefined;
}

/** The machine that becomes a host. */
class Machine implements AsyncDisposable {
  readonly dir: string;
  readonly address: string;
  readonly #env: Readonly<Record<string, string>>;
  #agent: Program | undefined;
  #starts = 0;

  private constructor(dir: string, address: string, env: Readonly<Record<string, string>>) {
    this.dir = dir;
    this.address = address;
    this.#env = env;
  }

  static async create(configure: (dir: string, listen: string) => Readonly<Record<string, string>>): Promise<Machine> {
    const dir = await temporaryWrennDir();
    const address = `127.0.0.1:${await freePort()}`;
    return new Machine(dir, address, {
      ...{ WRENN_DIR: '', WRENN_HOST_LISTEN_ADDR: '', WRENN_CP_URL: '', WRENN_WARM_POOL_MAX_MB: '0' },
      ...configure(dir, address),
      PATH: `${join(work, 'bin')}:${process.env.PATH}`,
    });
  }

  async start(command: string, token = ''): Promise<void> {
    this.#starts += 1;
    const line = here(command)
      .replace('<token-from-step-1>', token)
      .replace(/(10\.0\.1\.5|<host-ip>):50051/, this.address);
    this.#agent = new Program(['sh', '-c', `cd '${work}' && exec ${line}`], this.#env, this.#logFile);
    this.#agent.start();
  }

  async stop(): Promise<void> {
    const agent = this.#agent;
    const end = agent?.end('SIGTERM').then(() => true);
    const hasEnded = await Promise.race([end, delay(STOP_TIMEOUT_MS, false, { ref: false })]);
    if (hasEnded === false) throw new Error(`the agent does not end:\n${await readFile(this.#logFile, 'utf8')}`);
  }

  async requireRunning(): Promise<void> {
    if (this.#agent?.hasEnded) throw new Error(`the agent ended:\n${await readFile(this.#logFile, 'utf8')}`);
  }

  /** Loses what the registration brought. */
  async forget(): Promise<void> {
    await rm(join(this.dir, 'host-token'));
  }

  /** What it said, once it has ended by itself. */
  async ended(): Promise<string> {
    await until('the agent ends', 90_000, async () => {
      await controlPlane.requireRunning();
      return this.#agent?.hasEnded === true;
    });
    return readFile(this.#logFile, 'utf8');
  }

  get #logFile(): string {
    return join(this.dir, `agent-${this.#starts}.log`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await rm(this.dir, { recursive: true, force: true });
  }
}
