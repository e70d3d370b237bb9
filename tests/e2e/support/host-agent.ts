import { readdir, readFile, rm } from 'node:fs/promises';
import { Agent } from 'node:http';
import { join } from 'node:path';
import { type Client, createClient, type Interceptor } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { ensureLocalPki } from '@wrenn/pki/local-pki';
import { Process } from '@wrenn/protocol/gen/process/process_pb';
import { HostService } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { until } from '@wrenn/testing/until';
import { Program, temporaryWrennDir } from './platform.ts';

const MAIN = join(import.meta.dirname, '..', '..', '..', 'apps', 'host-agent', 'src', 'main.ts');
const START_TIMEOUT_MS = 60_000;

/** wrenn-agent as a process of its own, on a WRENN_DIR of its own, which a test may kill and start again. */
export class TestAgent {
  readonly dir: string;
  readonly #program: Program;
  #readyLines = 0;
  #client: Client<typeof HostService> | undefined;

  private constructor(dir: string, over: Readonly<Record<string, string>>) {
    this.dir = dir;
    const env = { WRENN_DIR: dir, WRENN_HOST_LISTEN_ADDR: '127.0.0.1:0', LOG_LEVEL: 'info', ...over };
    this.#program = new Program([process.execPath, MAIN], env, join(wrennDir(dir).logs, 'agent.log'));
  }

  static async create(dir?: string, env: Readonly<Record<string, string>> = {}): Promise<TestAgent> {
    return new TestAgent(dir ?? (await temporaryWrennDir()), env);
  }

  get client(): Client<typeof HostService> {
    if (!this.#client) throw new Error('the agent does not run');
    return this.#client;
  }

  get pid(): number {
    return this.#program.pid;
  }

  async start(): Promise<void> {
    this.#program.start();
    let lines: string[] = [];
    await until('the agent is ready', START_TIMEOUT_MS, async () => {
      lines = (await this.log()).split('\n').filter((line) => line.includes('"agent is ready"'));
      return lines.length > this.#readyLines;
    });
    this.#readyLines = lines.length;
    const { port } = JSON.parse(lines.at(-1) ?? '{}') as { port: number };
    const pki = await ensureLocalPki(this.dir);
    this.#client = createClient(
      HostService,
      createConnectTransport({
        httpVersion: '2',
        baseUrl: `https://127.0.0.1:${port}`,
        nodeOptions: { ca: pki.caCertPem, cert: pki.controlPlane.certPem, key: pki.controlPlane.keyPem },
      }),
    );
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    this.#client = undefined;
    await this.#program.end(signal);
  }

  async log(): Promise<string> {
    return readFile(this.#program.logFile, 'utf8').catch(() => '');
  }

  /** Destroys every VM, stops the agent and removes its folder. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#client) await this.start();
    const { vms } = await this.client.listVms({});
    await Promise.all(vms.map(({ id }) => this.client.destroyVm({ id })));
    await this.stop('SIGTERM');
    await rm(this.dir, { recursive: true });
  }
}

/** Runs a shell command in a guest and returns its output; undefined when the guest ended before the command did. */
export async function runInGuest(hostIp: string, token: string, script: string): Promise<string | undefined> {
  const withToken: Interceptor = (next) => (request) => {
    request.header.set('X-Access-Token', token);
    return next(request);
  };
  const transport = createConnectTransport({
    httpVersion: '1.1',
    baseUrl: `http://${hostIp}:49983`,
    interceptors: [withToken],
    // One that was kept may lead to an earlier VM with the same address.
    nodeOptions: { agent: new Agent({ keepAlive: false }) },
  });
  const decoder = new TextDecoder();
  let output = '';
  const request = { process: { cmd: '/bin/sh', args: ['-c', script] }, stdin: false };
  for await (const { event } of createClient(Process, transport).start(request, { timeoutMs: 60_000 })) {
    if (event?.event.case === 'data' && event.event.value.output.case === 'stdout') {
      output += decoder.decode(event.event.value.output.value, { stream: true });
    }
    if (event?.event.case === 'end') return output;
  }
  return undefined;
}

/** Seconds by which a guest's clock is surely wrong: what it says must lie between the question and the answer. */
export async function clockError(hostIp: string, token: string): Promise<number> {
  const asked = Date.now() / 1000;
  const seconds = Number(await runInGuest(hostIp, token, 'date +%s.%N'));
  return Math.max(0, asked - seconds, seconds - Date.now() / 1000);
}

/** The folder of the VM that a capsule has on a host; undefined where it has none. */
export async function vmFolderOf(dir: string, id: string): Promise<string | undefined> {
  const { capsules } = wrennDir(dir);
  for (const name of await readdir(capsules)) {
    const text = await readFile(join(capsules, name, 'record.json'), 'utf8').catch(() => '{}');
    if (JSON.parse(text).id === id) return join(capsules, name);
  }
  return undefined;
}
