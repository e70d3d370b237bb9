import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampNow } from '@bufbuild/protobuf/wkt';
import { AgentServer } from '@wrenn/host-agent/server/agent-server';
import { ensureLocalPki } from '@wrenn/pki/local-pki';
import { toConnectError } from '@wrenn/protocol/connect-errors';
import { WrennError } from '@wrenn/protocol/errors';
import {
  type CreateVmRequest,
  type Vm,
  VmSchema,
  VmState,
  type WatchVmsResponseSchema,
} from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { pino } from 'pino';

const ENVD = join(import.meta.dirname, '..', '..', '..', 'envd', 'src', 'main.ts');
const ENVD_PORT = 49_983;
const START_TIMEOUT_MS = 30_000;

type Event = MessageInitShape<typeof WatchVmsResponseSchema>;

interface LoopbackVm {
  vm: Vm;
  readonly envd: ChildProcess;
  readonly ended: AbortController;
  readonly dir: string;
}

/**
 * A host for tests that need many guests quickly: the agent's real server and tunnel over real envds, each on a
 * loopback address of its own in place of a microVM.
 */
export class LoopbackHost implements AsyncDisposable {
  readonly #dir: string;
  readonly #vms = new Map<string, LoopbackVm>();
  readonly #watchers = new Set<(event: Event) => void>();
  #server: AgentServer | undefined;
  #port = 0;
  #nextAddress = 1 + Math.floor(Math.random() * 60_000);
  /** What the next CreateVm waits for; tests hold it to act in the middle of a start. */
  beforeCreate: (request: CreateVmRequest, signal: AbortSignal) => Promise<void> = async () => undefined;
  creates = 0;

  private constructor(wrennDir: string) {
    this.#dir = wrennDir;
  }

  static async start(wrennDir: string): Promise<LoopbackHost> {
    const host = new LoopbackHost(wrennDir);
    await host.listen();
    return host;
  }

  get address(): string {
    return `https://127.0.0.1:${this.#port}`;
  }

  vmIds(): string[] {
    return [...this.#vms.keys()];
  }

  /** Listens, again on the same port after `goSilent`. */
  async listen(): Promise<void> {
    this.#server = await AgentServer.listen({
      address: { host: '127.0.0.1', port: this.#port },
      pki: await ensureLocalPki(this.#dir),
      log: pino({ level: 'silent' }),
      findGuest: (id) => {
        const found = this.#vms.get(id);
        if (!found) throw new WrennError('capsule_not_found', { id });
        return { hostIp: found.vm.hostIp, ended: found.ended.signal };
      },
      service: {
        hello: () => ({
          protocol: 1,
          agentVersion: 'test',
          arch: 'x86_64',
          cpuCount: 4,
          memoryMb: 8192n,
          templates: [{ name: 'minimal', sha256: '0'.repeat(64), envdVersion: 'test', warmShapes: [] }],
        }),
        createVm: async (request, { signal }) => ({ vm: await this.#create(request, signal) }),
        destroyVm: async ({ id }) => {
          await this.#destroy(id);
          return {};
        },
        getVm: ({ id }) => ({ vm: this.#require(id).vm }),
        listVms: () => ({ vms: [...this.#vms.values()].map(({ vm }) => vm) }),
        getVmConsole: ({ id }) => ({ data: Buffer.from(`console of ${id}`) }),
        pauseVm: () => refuse(),
        resumeVm: () => refuse(),
        forkVm: () => refuse(),
        snapshotVm: () => refuse(),
        deleteSnapshot: () => refuse(),
        verifyVm: () => refuse(),
        hibernateVm: () => refuse(),
        forgetVm: () => refuse(),
        deleteHibernated: () => refuse(),
        watchVms: (_request, { signal }) => this.#watch(signal),
      },
    });
    this.#port = this.#server.port;
  }

  /** Ends every connection and listens no more; the guests go on. */
  async goSilent(): Promise<void> {
    await this.#server?.[Symbol.asyncDispose]();
    this.#server = undefined;
  }

  /** Ends a guest as a crash would: its host notices and says so. */
  async crash(id: string): Promise<void> {
    const found = this.#require(id);
    await endProcess(found.envd);
    found.ended.abort();
    found.vm = create(VmSchema, {
      ...found.vm,
      state: VmState.FAILED,
      reasonCode: 'capsule_ended',
      reason: 'The guest crashed.',
    });
    this.#tell({ event: { case: 'vm', value: found.vm } });
  }

  /** Loses a guest without a word, as a host that was installed anew would. */
  async forget(id: string): Promise<void> {
    await this.#destroy(id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.goSilent();
    await Promise.all(this.vmIds().map((id) => this.#destroy(id)));
  }

  async #create(request: CreateVmRequest, signal: AbortSignal): Promise<Vm> {
    this.creates += 1;
    const found = this.#vms.get(request.id);
    if (found) return found.vm;
    try {
      await this.beforeCreate(request, signal);
    } catch (error) {
      throw error instanceof WrennError ? toConnectError(error) : error;
    }
    signal.throwIfAborted();
    const number = this.#nextAddress++;
    const hostIp = `127.77.${(number >> 8) & 255}.${number & 255}`;
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-loopback-'));
    const envd = spawn(process.execPath, [ENVD, '--host', hostIp, '--port', String(ENVD_PORT)], {
      stdio: ['ignore', 'ignore', 'pipe'],
      cwd: dir,
      env: { ...process.env, HOME: dir },
    });
    const vm = create(VmSchema, {
      id: request.id,
      state: VmState.RUNNING,
      template: request.template,
      ...(request.shape ? { shape: request.shape } : {}),
      diskMb: request.diskMb || 1024,
      hostIp,
      createdAt: timestampNow(),
      startedAt: timestampNow(),
      versions: { kernel_version: 'test', agent_version: 'test', envd_version: 'test', hypervisor_version: 'none' },
    });
    this.#vms.set(request.id, { vm, envd, ended: new AbortController(), dir });
    await untilListening(envd);
    await initGuest(hostIp, request, dir);
    this.#tell({ event: { case: 'vm', value: vm } });
    return vm;
  }

  async #destroy(id: string): Promise<void> {
    const found = this.#vms.get(id);
    if (!found) return;
    this.#vms.delete(id);
    found.ended.abort();
    await endProcess(found.envd);
    await rm(found.dir, { recursive: true, force: true });
    this.#tell({ event: { case: 'destroyed', value: id } });
  }

  #require(id: string): LoopbackVm {
    const found = this.#vms.get(id);
    if (!found) throw toConnectError(new WrennError('capsule_not_found', { id }));
    return found;
  }

  #tell(event: Event): void {
    for (const watcher of this.#watchers) watcher(event);
  }

  async *#watch(signal: AbortSignal): AsyncGenerator<Event> {
    const queue: Event[] = [...this.#vms.values()].map(({ vm }) => ({ event: { case: 'vm', value: vm } }));
    queue.push({ event: { case: 'synced', value: {} } });
    let wake: () => void = () => undefined;
    const watcher = (event: Event) => {
      queue.push(event);
      wake();
    };
    this.#watchers.add(watcher);
    signal.addEventListener('abort', () => wake());
    try {
      while (!signal.aborted) {
        const next = queue.shift();
        if (next) yield next;
        else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      this.#watchers.delete(watcher);
    }
  }
}

function refuse(): never {
  throw toConnectError(new WrennError('internal_error'));
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

async function initGuest(hostIp: string, { init }: CreateVmRequest, dir: string): Promise<void> {
  const answer = await fetch(`http://${hostIp}:${ENVD_PORT}/init`, {
    method: 'POST',
    body: JSON.stringify({ accessToken: init?.accessToken, envVars: init?.envs, defaultWorkdir: dir }),
    signal: AbortSignal.timeout(START_TIMEOUT_MS),
  });
  if (answer.status !== 204) throw new Error(`/init was answered with ${answer.status}: ${await answer.text()}`);
}

async function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}
