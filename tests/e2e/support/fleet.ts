import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { freePorts } from '@wrenn/config/free-port';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { runCommand } from '@wrenn/host-agent/processes/run-command';
import { issueAuthority } from '@wrenn/pki/issue';
import { until } from '@wrenn/testing/until';
import { Balancer } from './balancer.ts';
import { FleetNetwork, type HostNetwork } from './fleet-network.ts';
import { Program, temporaryWrennDir } from './platform.ts';
import { sweepHost } from './sweep-host.ts';

const AGENT_PORT = 50_051;
const START_TIMEOUT_MS = 120_000;
const APPS = join(import.meta.dirname, '..', '..', '..', 'apps');
const AGENT = join(APPS, 'host-agent', 'src', 'main.ts');
const CONTROL_PLANE = join(APPS, 'control-plane', 'src', 'main.ts');

/** What the API answers. Statuses of errors are answers too. */
export interface Answer {
  readonly status: number;
  // Answers are of many shapes, and a test that reads a wrong one fails.
  // biome-ignore lint/suspicious/noExplicitAny: see above
  readonly body: any;
}

export interface FleetControlPlane {
  readonly baseUrl: string;
  readonly program: Program;
}

/** A registered host: an agent in a network of its own. */
export class FleetHost {
  readonly id: string;
  readonly dir: string;
  readonly network: HostNetwork;
  readonly #command: readonly [string, ...string[]];
  readonly #env: Readonly<Record<string, string>>;
  #agent: Program | undefined;

  constructor(
    place: { readonly id: string; readonly dir: string; readonly network: HostNetwork },
    args: readonly string[],
    env: Readonly<Record<string, string>>,
  ) {
    this.id = place.id;
    this.dir = place.dir;
    this.network = place.network;
    this.#command = place.network.inside(process.execPath, AGENT, ...args);
    this.#env = env;
  }

  /** @param more arguments for this start only */
  start(...more: readonly string[]): void {
    this.#agent = new Program([...this.#command, ...more], this.#env, join(wrennDir(this.dir).logs, 'agent.log'));
    this.#agent.start();
  }

  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    await this.#agent?.end(signal);
  }

  get hasEnded(): boolean {
    return this.#agent?.hasEnded ?? true;
  }

  log(): Promise<string> {
    return this.#agent ? readLog(this.#agent) : Promise.resolve('');
  }
}

export interface CallOptions {
  /** Which control plane is asked; the first that runs unless told. */
  readonly at?: FleetControlPlane;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

export interface FleetOptions {
  readonly databaseUrl: string;
  readonly redisUrl: string;
  readonly controlPlanes: number;
}

export interface HostOptions {
  /** Whether no address leads to its agent. */
  readonly isOutbound?: boolean;
  readonly tags?: readonly string[];
  /** A host of the same kind, whose snapshots of templates it begins with. */
  readonly like?: FleetHost | undefined;
}

/**
 * Control planes of one database, and hosts that register with them by tokens, each in a network of its own. Disposing
 * it ends all programs and whatever the hosts have.
 */
export class Fleet implements AsyncDisposable {
  readonly controlPlanes: FleetControlPlane[] = [];
  readonly hosts: FleetHost[] = [];
  readonly #stack = new AsyncDisposableStack();
  readonly #network: FleetNetwork;
  #balancerPort = 0;
  #objects = '';
  #apiKey = '';
  #adminToken = '';

  private constructor() {
    this.#network = this.#stack.use(new FleetNetwork());
  }

  static async start(options: FleetOptions): Promise<Fleet> {
    const fleet = new Fleet();
    try {
      await fleet.#open(options);
      return fleet;
    } catch (error) {
      const logs = await Promise.all(fleet.controlPlanes.map(({ program }) => readLog(program)));
      await fleet[Symbol.asyncDispose]();
      throw new Error(`the fleet did not start\n${logs.map((log) => log.slice(-4000)).join('\n')}`, { cause: error });
    }
  }

  async #open({ databaseUrl, redisUrl, controlPlanes }: FleetOptions): Promise<void> {
    this.#objects = await this.#temporaryFolder('wrenn-objects-');
    const authority = await issueAuthority(3650);
    const common = {
      DATABASE_URL: databaseUrl,
      REDIS_URL: redisUrl,
      CP_HOST_AGENT_ADDR: 'none',
      JWT_SECRET: randomBytes(32).toString('hex'),
      WRENN_ENCRYPTION_KEY: randomBytes(32).toString('hex'),
      WRENN_CA_CERT: authority.certPem,
      WRENN_CA_KEY: authority.keyPem,
      LOG_LEVEL: 'info',
    };
    const ports = await freePorts(controlPlanes);
    const dirs: string[] = [];
    for (const port of ports) {
      const dir = await this.#temporaryFolder('wrenn-cp-');
      const env = { ...common, WRENN_DIR: dir, WRENN_CP_LISTEN_ADDR: `:${port}` };
      const program = new Program([process.execPath, CONTROL_PLANE], env, join(dir, 'cp.log'));
      this.controlPlanes.push({ baseUrl: `http://127.0.0.1:${port}`, program });
      dirs.push(dir);
      this.#stack.defer(() => program.end('SIGTERM'));
      program.start();
    }
    this.#balancerPort = this.#stack.use(await Balancer.start(ports)).port;
    await Promise.all(this.controlPlanes.map((each) => this.untilServing(each)));
    const [dir = ''] = dirs;
    this.#apiKey = (await readFile(wrennDir(dir).apiKeyFile, 'utf8')).trim();
    this.#adminToken = await this.#makeAdmin({ ...common, WRENN_DIR: dir });
  }

  /** Waits until a control plane takes requests. */
  async untilServing({ baseUrl, program }: FleetControlPlane): Promise<void> {
    await until(`${baseUrl} answers`, START_TIMEOUT_MS, async () => {
      if (program.hasEnded) throw new Error(`the control plane ended:\n${await readLog(program)}`);
      return (await fetch(`${baseUrl}/health`).catch(() => undefined))?.ok;
    });
  }

  /** The first control plane that runs. */
  get #anyControlPlane(): FleetControlPlane {
    const first = this.controlPlanes.find(({ program }) => program.isRunning);
    if (!first) throw new Error('no control plane runs');
    return first;
  }

  /** Asks as a team does. */
  call(method: string, path: string, body?: unknown, options: CallOptions = {}): Promise<Answer> {
    const { at = this.#anyControlPlane, headers = {}, signal } = options;
    return ask(at.baseUrl, method, path, { ...headers, 'x-api-key': this.#apiKey }, body, signal);
  }

  /** Asks as an administrator of the platform does. */
  administer(method: string, path: string, body?: unknown): Promise<Answer> {
    return ask(this.#anyControlPlane.baseUrl, method, path, { authorization: `Bearer ${this.#adminToken}` }, body);
  }

  /** Registers a host as an administrator does by hand. Resolves when every control plane follows it. */
  async addHost({ isOutbound = false, tags = [], like }: HostOptions = {}): Promise<FleetHost> {
    const made = await this.administer('POST', '/v1/hosts', { type: 'regular', tags });
    if (made.status !== 201) throw new Error(`the host was refused: ${JSON.stringify(made.body)}`);
    const network = await this.#network.addHost();
    const dir = await realpath(await temporaryWrennDir());
    this.#stack.defer(() => rm(dir, { recursive: true, force: true }));
    this.#stack.defer(() => sweepHost(dir));
    if (like) await runCommand('cp', ['-al', wrennDir(like.dir).templateSnapshots, wrennDir(dir).templateSnapshots]);
    const env = {
      WRENN_DIR: dir,
      WRENN_CP_URL: `http://${network.gateway}:${this.#balancerPort}`,
      WRENN_HOST_LISTEN_ADDR: `:${AGENT_PORT}`,
      WRENN_OBJECT_STORE: pathToFileURL(this.#objects).href,
      // Filling it takes CPU that the test is measuring, and it hides how VMs are started.
      WRENN_WARM_POOL_MAX_MB: '0',
      LOG_LEVEL: 'info',
    };
    const args = isOutbound ? [] : ['--address', `${network.address}:${AGENT_PORT}`];
    const host = new FleetHost({ id: made.body.host.id, dir, network }, args, env);
    this.#stack.defer(() => host.end('SIGTERM'));
    host.start('--register', made.body.registration_token);
    this.hosts.push(host);
    await this.untilFollowed(host);
    return host;
  }

  /** Waits until a host is online, and every control plane follows all of them. */
  async untilFollowed(host: FleetHost): Promise<void> {
    await this.untilHost(host, 'online');
    for (const { baseUrl } of this.controlPlanes.filter(({ program }) => program.isRunning)) {
      await until(`${baseUrl} follows all hosts`, START_TIMEOUT_MS, async () => {
        const { body } = await ask(baseUrl, 'GET', '/ready', {}, undefined);
        return body.checks.host.detail === `${this.hosts.length} online`;
      });
    }
  }

  /** Waits until the platform says that of a host. */
  async untilHost(host: FleetHost, status: string, timeoutMs = START_TIMEOUT_MS): Promise<void> {
    let last: Answer | undefined;
    try {
      await until(`${host.id} is ${status}`, timeoutMs, async () => {
        if (status === 'online' && host.hasEnded) throw new Error('its agent ended');
        last = await this.administer('GET', `/v1/hosts/${host.id}`);
        return last.body.status === status;
      });
    } catch (cause) {
      const said = (await host.log()).slice(-4000);
      throw new Error(`the host did not become ${status}: ${JSON.stringify(last)}\n${said}`, { cause });
    }
  }

  async #temporaryFolder(prefix: string): Promise<string> {
    const dir = await mkdtemp(join(tmpdir(), prefix));
    this.#stack.defer(() => rm(dir, { recursive: true, force: true }));
    return dir;
  }

  /** Makes the first administrator where the database is, and logs in as that. */
  async #makeAdmin(env: Record<string, string>): Promise<string> {
    const [email, password] = ['admin@example.com', randomBytes(16).toString('hex')];
    const command = ['admin', 'create', email, '--password-stdin'];
    const child = spawn(process.execPath, [CONTROL_PLANE, ...command], {
      env: { ...process.env, ...env },
      stdio: ['pipe', 'ignore', 'inherit'],
    });
    child.stdin.end(`${password}\n`);
    const [code] = await once(child, 'exit');
    if (code !== 0) throw new Error(`wrenn-cp admin create ended with ${code}`);
    const { baseUrl } = this.#anyControlPlane;
    const { status, body } = await ask(baseUrl, 'POST', '/v1/auth/login', {}, { email, password });
    if (status !== 200) throw new Error(`the login was refused: ${JSON.stringify(body)}`);
    return body.token;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

async function ask(
  baseUrl: string,
  method: string,
  path: string,
  headers: Readonly<Record<string, string>>,
  body: unknown,
  signal?: AbortSignal,
): Promise<Answer> {
  const answer = await fetch(`${baseUrl}${path}`, {
    method,
    headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    ...(signal ? { signal } : {}),
  });
  const text = await answer.text();
  return { status: answer.status, body: text === '' ? undefined : JSON.parse(text) };
}

function readLog({ logFile }: Program): Promise<string> {
  return readFile(logFile, 'utf8').catch(() => '');
}
