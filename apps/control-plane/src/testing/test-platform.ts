import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '@wrenn/testing/until';
import { pino } from 'pino';
import { WebSocket } from 'ws';
import { type ControlPlane, type ControlPlaneOptions, startControlPlane } from '../control-plane.ts';
import { readSettings } from '../settings.ts';
import { LoopbackHost } from './loopback-host.ts';
import { createTestDatabase } from './test-database.ts';

/** Hashed in a millisecond or so. */
const QUICK_PASSWORDS = { logN: 8, r: 8, p: 1 };

/** The last ones, in the error of a create that fails. */
const WARNINGS_SHOWN = 5;

/** A control plane with a host whose guests are envds on loopback addresses. */
export class TestPlatform implements AsyncDisposable {
  readonly host: LoopbackHost;
  readonly databaseUrl: string;
  apiKey = '';
  /** What the control plane has logged as a warning or worse, unless TEST_LOG_LEVEL or the test asks for another log. */
  readonly warnings: readonly string[];
  readonly #options: ControlPlaneOptions;
  readonly #stack: AsyncDisposableStack;
  #controlPlane: ControlPlane | undefined;

  private constructor(
    host: LoopbackHost,
    options: ControlPlaneOptions,
    databaseUrl: string,
    warnings: readonly string[],
    stack: AsyncDisposableStack,
  ) {
    this.host = host;
    this.warnings = warnings;
    this.databaseUrl = databaseUrl;
    this.#options = options;
    this.#stack = stack;
  }

  /**
   * @param settings variables of the environment, besides those that a test cannot do without; attempts with
   *   credentials are unlimited where they do not say otherwise
   * @param changes of other options
   */
  static async start(
    settings: Record<string, string> = {},
    changes: Partial<ControlPlaneOptions> = {},
  ): Promise<TestPlatform> {
    await using stack = new AsyncDisposableStack();
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-cp-'));
    stack.defer(() => rm(dir, { recursive: true, force: true }));
    await chmod(dir, 0o711);
    const database = stack.use(await createTestDatabase());
    const host = stack.use(await LoopbackHost.start(dir));
    const warnings: string[] = [];
    const level = process.env.TEST_LOG_LEVEL;
    const options: ControlPlaneOptions = {
      ...readSettings({
        ...{ WRENN_RATE_LIMIT_FACTOR: '0', ...settings },
        ...{ WRENN_DIR: dir, DATABASE_URL: database.url, LOG_LEVEL: 'silent' },
      }),
      listen: { host: '127.0.0.1', port: 0 },
      hostAgentAddress: host.address,
      log: level ? pino({ level }) : pino({ level: 'warn' }, { write: (line: string) => warnings.push(line) }),
      hostSilenceMs: 300,
      probeTimeoutMs: 3000,
      drainMs: 100,
      passwordCost: QUICK_PASSWORDS,
      ...changes,
    };
    const platform = new TestPlatform(host, options, database.url, warnings, stack.move());
    try {
      await platform.startControlPlane();
      return platform;
    } catch (error) {
      await platform[Symbol.asyncDispose]();
      throw error;
    }
  }

  async startControlPlane(): Promise<void> {
    this.#controlPlane = await startControlPlane(this.#options);
    this.apiKey = (await readFile(this.#controlPlane.apiKeyFile, 'utf8')).trim();
    await until('the host is online', async () => (await fetch(`${this.baseUrl}/ready`)).ok);
  }

  /** Another control plane of the same platform. */
  startAnother(): Promise<ControlPlane> {
    return startControlPlane(this.#options);
  }

  async stopControlPlane(): Promise<void> {
    await this.#controlPlane?.[Symbol.asyncDispose]();
    this.#controlPlane = undefined;
  }

  get wrennDir(): string {
    return this.#options.wrennDir;
  }

  get apiKeyFile(): string {
    return this.#controlPlane?.apiKeyFile ?? '';
  }

  get baseUrl(): string {
    return `http://127.0.0.1:${this.#controlPlane?.port}`;
  }

  /** A request with the key, or the token of a login. A plain object as body is sent as JSON. */
  fetch(
    path: string,
    init: Omit<RequestInit, 'body'> & { json?: unknown; body?: RequestInit['body']; token?: string } = {},
  ): Promise<Response> {
    const { json, body, headers, token, ...rest } = init;
    return fetch(`${this.baseUrl}${path}`, {
      ...rest,
      method: init.method ?? (json === undefined && body === undefined ? 'GET' : 'POST'),
      headers: {
        ...(token === undefined ? { 'x-api-key': this.apiKey } : { authorization: `Bearer ${token}` }),
        ...(json === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(json === undefined ? (body ? { body } : {}) : { body: JSON.stringify(json) }),
    });
  }

  /** The same, with its JSON. */
  async call(path: string, init?: Parameters<TestPlatform['fetch']>[1]): Promise<{ status: number; body: Json }> {
    const answer = await this.fetch(path, init);
    const text = await answer.text();
    return { status: answer.status, body: text === '' ? undefined : JSON.parse(text) };
  }

  async createCapsule(json: object = {}): Promise<string> {
    const { status, body } = await this.call('/v1/capsules', { json });
    if (status !== 201) {
      const log = this.warnings.slice(-WARNINGS_SHOWN).join('');
      throw new Error(`create was answered with ${status}: ${JSON.stringify(body)}\n${log}`);
    }
    return body.id;
  }

  /** A WebSocket with the key or another credential, open; at another control plane where its port is given. */
  async connect(path: string, { credential = this.apiKey, port = this.#controlPlane?.port } = {}): Promise<TestSocket> {
    const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, { headers: { 'x-api-key': credential } });
    const opened = new TestSocket(socket);
    await opened.opened;
    return opened;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopControlPlane();
    await this.#stack.disposeAsync();
  }
}

// Answers are of many shapes, and a test that reads a wrong one fails.
// biome-ignore lint/suspicious/noExplicitAny: see above
type Json = any;

/** A WebSocket whose frames a test takes one after the other. */
export class TestSocket {
  readonly socket: WebSocket;
  readonly opened: Promise<void>;
  readonly #frames: Json[] = [];
  readonly binary: Buffer[] = [];
  closeCode: number | undefined;

  constructor(socket: WebSocket) {
    this.socket = socket;
    this.opened = new Promise((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', reject);
    });
    socket.on('message', (data, isBinary) => {
      if (isBinary) this.binary.push(data as Buffer);
      else this.#frames.push(JSON.parse(String(data)));
    });
    socket.on('close', (code) => {
      this.closeCode = code;
    });
  }

  send(frame: unknown): void {
    this.socket.send(typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame));
  }

  async next(): Promise<Json> {
    await until('a frame comes', () => this.#frames.length > 0);
    return this.#frames.shift();
  }

  /** Frames up to and with the first that the condition takes. */
  async takeUntil(condition: (frame: Json) => boolean): Promise<Json[]> {
    const taken: Json[] = [];
    for (;;) {
      const frame = await this.next();
      taken.push(frame);
      if (condition(frame)) return taken;
    }
  }

  async closed(): Promise<number> {
    await until('the socket is closed', () => this.closeCode !== undefined);
    return this.closeCode ?? 0;
  }
}
