import type { Duplex } from 'node:stream';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type Timestamp, timestampMs, timestampNow } from '@bufbuild/protobuf/wkt';
import type { Interceptor } from '@connectrpc/connect';
import { type AgentPki, AgentServer } from '@wrenn/host-agent/server/agent-server';
import { ensureLocalPki } from '@wrenn/pki/local-pki';
import { toConnectError } from '@wrenn/protocol/connect-errors';
import { WrennError } from '@wrenn/protocol/errors';
import {
  type CreateVmRequest,
  type ForkVmRequest,
  type GuestInit,
  type HelloResponseSchema,
  type HibernateVmRequest,
  MemoryUse,
  type PauseVmRequest,
  type ResumeVmRequest,
  type Snapshot,
  SnapshotSchema,
  type SnapshotVmRequest,
  TraceStepSchema,
  type Vm,
  type VmSampleSchema,
  VmSchema,
  VmState,
  type WatchVmsResponseSchema,
} from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { quietPort } from '@wrenn/testing/quiet-port';
import { until } from '@wrenn/testing/until';
import { pino } from 'pino';
import { LoopbackGuest } from './loopback-guest.ts';

type Event = MessageInitShape<typeof WatchVmsResponseSchema>;
type VmFields = Partial<Pick<Vm, 'state' | 'generation' | 'snapshotProblem' | 'memoryDiscarded' | 'reason' | 'hostIp'>>;

interface LoopbackVm {
  vm: Vm;
  guest: LoopbackGuest;
  /** Aborts with what is open to the guest. */
  ended: AbortController;
}

/** What tests hold or break. */
export type Verb =
  | 'create'
  | 'pause'
  | 'resume'
  | 'fork'
  | 'snapshot'
  | 'publishTemplate'
  | 'publishSnapshot'
  | 'deleteSnapshot'
  | 'verify'
  | 'hibernate'
  | 'forget'
  | 'deleteHibernated';

/** Called with the request; what it throws is the verb's answer. */
export type Hook = (request: { id: string }, signal: AbortSignal) => Promise<void>;

/** Bytes that every sleep of this host holds. */
const SNAPSHOT_BYTES = 4096n;

/**
 * A host for tests that need many guests quickly: the agent's real server and tunnel over real envds, each on a
 * loopback address of its own in place of a microVM. A guest that sleeps is a stopped process.
 */
export class LoopbackHost implements AsyncDisposable {
  readonly #vms = new Map<string, LoopbackVm>();
  readonly #guests = new Set<LoopbackGuest>();
  readonly #snapshots = new Map<string, Snapshot>();
  #objects = new Map<string, LoopbackVm>();
  readonly #watchers = new Set<(event: Event) => void>();
  #server: AgentServer | undefined;
  readonly #port: number;
  /** What the next CreateVm waits for; tests hold it to act in the middle of a start. */
  beforeCreate: (request: CreateVmRequest, signal: AbortSignal) => Promise<void> = async () => undefined;
  readonly templates = new Set(['minimal']);
  /** What the server shows, and whom it trusts; unless told what programs of one machine have. */
  #identity: () => Promise<AgentPki>;
  /** What an answer to Hello says otherwise; what it throws is the answer. */
  hello: () => MessageInitShape<typeof HelloResponseSchema> = () => ({});
  /** Hosts that tests let share a store share its content too. */
  objectStore = 'store';
  published = new Map<string, Snapshot | string>();
  /** What a verb waits for before it does anything, and after it has done everything but answer. */
  readonly before: Partial<Record<Verb, Hook>> = {};
  readonly after: Partial<Record<Verb, Hook>> = {};
  /** Around every verb once it listens again. */
  readonly interceptors: Interceptor[] = [];
  /** What ReadStats tells. */
  readonly stats: (MessageInitShape<typeof VmSampleSchema> & { readonly id: string; readonly at: Timestamp })[] = [];
  /** Every request in the order in which they came. */
  readonly requests: { readonly verb: Verb; readonly request: object }[] = [];

  private constructor(port: number, identity: () => Promise<AgentPki>) {
    this.#port = port;
    this.#identity = identity;
  }

  static async start(wrennDir: string): Promise<LoopbackHost> {
    const host = new LoopbackHost(await quietPort(), () => ensureLocalPki(wrennDir));
    await host.listen();
    return host;
  }

  get address(): string {
    return `https://127.0.0.1:${this.#port}`;
  }

  get creates(): number {
    return this.asked('create').length;
  }

  vmIds(): string[] {
    return [...this.#vms.keys()];
  }

  vm(id: string): Vm | undefined {
    return this.#vms.get(id)?.vm;
  }

  snapshotIds(): string[] {
    return [...this.#snapshots.keys()];
  }

  /** Gives up all of them, as a host that runs out of disk does. @returns how many there were */
  dropSnapshots(): number {
    const { size } = this.#snapshots;
    this.#snapshots.clear();
    return size;
  }

  /** Uses the object store of another host from now on. */
  shareStoreOf(other: LoopbackHost): void {
    this.#objects = other.#objects;
    this.published = other.published;
    this.objectStore = other.objectStore;
  }

  objectKeys(): string[] {
    return [...this.#objects.keys()];
  }

  /** Requests of one kind. */
  asked(verb: Verb): object[] {
    return this.requests.filter((each) => each.verb === verb).map(({ request }) => request);
  }

  /** Takes all hooks away. */
  behave(): void {
    for (const hooks of [this.before, this.after]) {
      for (const verb of Object.keys(hooks) as Verb[]) delete hooks[verb];
    }
    this.beforeCreate = async () => undefined;
  }

  /** Listens, again on the same port after `goSilent`. */
  async listen(): Promise<void> {
    this.#server = await AgentServer.listen({
      interceptors: this.interceptors,
      address: { host: '127.0.0.1', port: this.#port },
      pki: await this.#identity(),
      log: pino({ level: 'silent' }),
      findGuest: (id) => {
        const found = this.#vms.get(id);
        if (found?.vm.state !== VmState.RUNNING) throw new WrennError('capsule_not_found', { id });
        return { hostIp: found.vm.hostIp, ended: found.ended.signal };
      },
      service: {
        hello: () => ({
          protocol: 1,
          agentVersion: 'test',
          arch: 'x86_64',
          // More than what any file of tests leaves running.
          cpuCount: 256,
          memoryMb: 524_288n,
          templates: [...this.templates].map((name) => ({
            ...{ name, sha256: '0'.repeat(64), envdVersion: 'test', warmShapes: [] },
          })),
          ...{ objectStore: this.objectStore, hypervisor: 'loopback', hypervisorVersion: '1', cpu: 'test' },
          ...this.hello(),
        }),
        createVm: async (request, { signal }) => ({
          vm: await this.#do('create', request, signal, () => this.#create(request, signal)),
        }),
        destroyVm: async ({ id }) => {
          await this.#destroy(id);
          return {};
        },
        getVm: ({ id }) => ({ vm: this.#require(id).vm }),
        listVms: () => ({ vms: [...this.#vms.values()].map(({ vm }) => vm) }),
        getVmConsole: ({ id }) => ({ data: Buffer.from(`console of ${id}`) }),
        pauseVm: async (request, { signal }) => ({ vm: await this.#pause(request, signal), trace: step('memory') }),
        resumeVm: async (request, { signal }) => ({
          vm: await this.#do('resume', request, signal, () => this.#resume(request)),
        }),
        forkVm: async (request, { signal }) => ({
          vms: await this.#do('fork', request, signal, () => this.#fork(request)),
          trace: step('memory'),
        }),
        publishTemplate: ({ name }, { signal }) =>
          this.#do('publishTemplate', { id: name }, signal, async () => this.#publishTemplate(name)),
        publishSnapshot: ({ snapshotId }, { signal }) =>
          this.#do('publishSnapshot', { id: snapshotId }, signal, async () => this.#publishSnapshot(snapshotId)),
        snapshotVm: async (request, { signal }) => ({
          snapshot: await this.#do('snapshot', request, signal, async () => this.#snapshot(request)),
        }),
        deleteSnapshot: ({ snapshotId }, { signal }) =>
          this.#do('deleteSnapshot', { id: snapshotId }, signal, async () => {
            this.#snapshots.delete(snapshotId);
            return {};
          }),
        verifyVm: (request, { signal }) => this.#do('verify', request, signal, async () => this.#verify(request.id)),
        hibernateVm: (request, { signal }) =>
          this.#do('hibernate', request, signal, async () => this.#hibernate(request)),
        forgetVm: ({ id }, { signal }) =>
          this.#do('forget', { id }, signal, async () => {
            const found = this.#vms.get(id);
            if (found?.vm.state === VmState.RUNNING) throw refusal(id, 'running', 'paused');
            if (this.#vms.delete(id)) this.#tell({ event: { case: 'destroyed', value: id } });
            return {};
          }),
        deleteHibernated: ({ objectKey }, { signal }) =>
          this.#do('deleteHibernated', { id: objectKey }, signal, async () => {
            this.#objects.delete(objectKey);
            this.published.delete(objectKey);
            return {};
          }),
        readStats: ({ id, since }) => ({
          samples: this.stats.filter(
            (sample) => (!id || sample.id === id) && (!since || timestampMs(sample.at) > timestampMs(since)),
          ),
        }),
        watchVms: (_request, { signal }) => this.#watch(signal),
      },
    });
  }

  /** Has its server show this from now on, and trust whom it names. */
  showFromNow(pki: AgentPki): void {
    this.#identity = async () => pki;
    this.#server?.renew(pki);
  }

  /** Serves a stream that did not come in through its port. */
  accept(stream: Duplex): void {
    if (this.#server) this.#server.accept(stream);
    else stream.destroy();
  }

  /** Ends every connection and listens no more; the guests go on. */
  async goSilent(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    await server?.[Symbol.asyncDispose]();
  }

  /** The same from within a verb, whose own request it cuts off. Listens again at once. */
  async restart(): Promise<void> {
    await this.goSilent();
    await this.listen();
  }

  /** Ends a guest as a crash would: its host notices and says so. */
  async crash(id: string): Promise<void> {
    const found = this.#require(id);
    await found.guest.kill();
    found.ended.abort();
    this.#change(found, { state: VmState.FAILED, reason: 'The guest crashed.' });
  }

  /** Damages, or mends, what a VM sleeps on. */
  damage(id: string, problem = 'memory has another sum'): void {
    this.#change(this.#require(id), { snapshotProblem: problem });
  }

  /** Puts a VM to sleep of the host's own accord, as an agent does that finishes what it began before it was killed. */
  async pauseUnasked(id: string): Promise<void> {
    const found = this.#require(id);
    this.#sleep(found, found.vm.generation + 1);
  }

  /** Where programs of a guest hold leases. */
  leaseDirectory(id: string): string {
    return this.#require(id).guest.leaseDirectory;
  }

  /** Lets a guest stand still, and go on again. */
  freeze(id: string, frozen: boolean): void {
    this.#require(id).guest.freeze(frozen);
  }

  /** Loses a VM, and tells only who connects later; @returns what gives it back. */
  lose(id: string): () => void {
    const found = this.#require(id);
    this.#vms.delete(id);
    return () => this.#vms.set(id, found);
  }

  /** Loses a guest without a word, as a host that was installed anew would. */
  async forget(id: string): Promise<void> {
    await this.#destroy(id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.goSilent();
    await Promise.all([...this.#guests].map((guest) => guest[Symbol.asyncDispose]()));
  }

  /** Runs a verb between its hooks. */
  async #do<T>(verb: Verb, request: { id: string }, signal: AbortSignal, run: () => Promise<T>): Promise<T> {
    this.requests.push({ verb, request });
    try {
      await this.before[verb]?.(request, signal);
      signal.throwIfAborted();
      const answer = await run();
      await this.after[verb]?.(request, signal);
      return answer;
    } catch (error) {
      throw error instanceof WrennError ? toConnectError(error) : error;
    }
  }

  async #create(request: CreateVmRequest, signal: AbortSignal): Promise<Vm> {
    const found = this.#vms.get(request.id);
    if (found) return found.vm;
    await this.beforeCreate(request, signal);
    signal.throwIfAborted();
    this.#requireSource(request);
    const { template, shape, diskMb } = this.#snapshots.get(request.snapshotId) ?? request;
    return this.#make(request.id, request.init, { template, shape, diskMb: diskMb || 1024 });
  }

  async #make(
    id: string,
    init: GuestInit | undefined,
    { template, shape, diskMb }: Pick<Vm, 'template' | 'shape' | 'diskMb'>,
  ): Promise<Vm> {
    const guest = await this.#startGuest(init);
    const vm = create(VmSchema, {
      ...{ id, template, diskMb, hostIp: guest.hostIp, trace: step('restore') },
      ...(shape ? { shape } : {}),
      state: VmState.RUNNING,
      createdAt: timestampNow(),
      startedAt: timestampNow(),
      versions: { kernel_version: 'test', agent_version: 'test', envd_version: 'test', hypervisor_version: 'none' },
    });
    this.#vms.set(id, { vm, guest, ended: new AbortController() });
    this.#tell({ event: { case: 'vm', value: vm } });
    return vm;
  }

  async #startGuest(init: GuestInit | undefined): Promise<LoopbackGuest> {
    const guest = await LoopbackGuest.start(init);
    this.#guests.add(guest);
    return guest;
  }

  async #pause(request: PauseVmRequest, signal: AbortSignal): Promise<Vm> {
    const { id, generation } = request;
    const found = this.#require(id);
    const isRepeated = () => found.vm.state === VmState.PAUSED && found.vm.generation === generation;
    if (found.vm.state === VmState.PAUSING) await until('the first ends', () => found.vm.state !== VmState.PAUSING);
    if (found.vm.state === VmState.RUNNING) this.#change(found, { state: VmState.PAUSING });
    try {
      return await this.#do('pause', request, signal, async () => {
        if (isRepeated()) return found.vm;
        if (found.vm.state !== VmState.PAUSING) throw refusal(id, VmState[found.vm.state], 'running');
        if (generation !== found.vm.generation + 1) throw refusal(id, `at ${found.vm.generation}`, 'one before');
        return this.#sleep(found, generation);
      });
    } catch (error) {
      if (found.vm.state === VmState.PAUSING) this.#change(found, { state: VmState.RUNNING });
      throw error;
    }
  }

  #sleep(found: LoopbackVm, generation: number): Vm {
    found.guest.freeze(true);
    found.ended.abort();
    found.vm = create(VmSchema, { ...found.vm, sleptAt: timestampNow(), snapshotBytes: SNAPSHOT_BYTES });
    return this.#change(found, { state: VmState.PAUSED, generation, hostIp: '' });
  }

  async #resume({ id, generation, init, memory, objectKey }: ResumeVmRequest): Promise<Vm> {
    const found = this.#vms.get(id) ?? this.#objects.get(objectKey);
    if (!found) throw new WrennError('capsule_not_found', { id });
    if (found.vm.state === VmState.RUNNING) return found.vm;
    if (found.vm.generation !== generation) throw refusal(id, `at ${found.vm.generation}`, `at ${generation}`);
    const discard = memory === MemoryUse.DISCARD;
    if (found.vm.snapshotProblem && !discard) {
      throw new WrennError('snapshot_damaged', { id, problem: found.vm.snapshotProblem });
    }
    let { guest } = found;
    if (discard) await guest.kill();
    if (guest.isAlive) {
      guest.freeze(false);
      await guest.init(init);
    } else guest = await this.#startGuest(init);
    const woken: LoopbackVm = { guest, ended: new AbortController(), vm: found.vm };
    woken.vm = create(VmSchema, { ...found.vm, startedAt: timestampNow(), trace: step('restore') });
    this.#vms.set(id, woken);
    return this.#change(woken, { state: VmState.RUNNING, hostIp: guest.hostIp, memoryDiscarded: discard, reason: '' });
  }

  async #fork({ id, children }: ForkVmRequest): Promise<Vm[]> {
    const source = this.#require(id);
    if (source.vm.state !== VmState.RUNNING) throw refusal(id, VmState[source.vm.state], 'running');
    return Promise.all(
      children.map((child) => this.#vms.get(child.id)?.vm ?? this.#make(child.id, child.init, source.vm)),
    );
  }

  #snapshot({ id, snapshotId }: SnapshotVmRequest): Snapshot {
    const { template, shape, diskMb } = this.#require(id).vm;
    const made = create(SnapshotSchema, {
      ...{ id: snapshotId, template, diskMb, sizeBytes: SNAPSHOT_BYTES, createdAt: timestampNow() },
      ...(shape ? { shape } : {}),
    });
    this.#snapshots.set(snapshotId, made);
    return made;
  }

  #publishTemplate(name: string): { objectKey: string } {
    if (!this.templates.has(name)) throw new WrennError('template_not_found', { name });
    const objectKey = `images/${name}`;
    this.published.set(objectKey, name);
    return { objectKey };
  }

  #publishSnapshot(id: string): { objectKey: string } {
    const found = this.#snapshots.get(id);
    if (!found) throw new WrennError('template_not_found', { name: id });
    const objectKey = `snapshots/${id}`;
    this.published.set(objectKey, found);
    return { objectKey };
  }

  /** Fetches what a VM is to be made of, where it is not here and its key is told. */
  #requireSource({ template, snapshotId, objectKey }: CreateVmRequest): void {
    const stored = this.published.get(objectKey);
    if (snapshotId && typeof stored === 'object') this.#snapshots.set(snapshotId, stored);
    if (!snapshotId && typeof stored === 'string') this.templates.add(stored);
    const isHere = snapshotId ? this.#snapshots.has(snapshotId) : this.templates.has(template);
    if (isHere) return;
    if (objectKey) throw new WrennError('object_store_failed', { problem: 'it does not have this' });
    throw new WrennError('template_not_found', { name: snapshotId || template });
  }

  #verify(id: string) {
    const { generation, snapshotProblem } = this.#require(id).vm;
    return {
      generation,
      files: [
        { name: 'memory', sizeBytes: SNAPSHOT_BYTES, problem: snapshotProblem },
        { name: 'devices', sizeBytes: 13n },
      ],
    };
  }

  #hibernate({ id, generation, objectKey }: HibernateVmRequest) {
    const found = this.#require(id);
    if (found.vm.state !== VmState.PAUSED || found.vm.generation !== generation) {
      throw refusal(id, VmState[found.vm.state], 'paused');
    }
    this.#objects.set(objectKey, { ...found });
    return { storedBytes: SNAPSHOT_BYTES };
  }

  async #destroy(id: string): Promise<void> {
    const found = this.#vms.get(id);
    if (!found) return;
    this.#vms.delete(id);
    found.ended.abort();
    this.#guests.delete(found.guest);
    await found.guest[Symbol.asyncDispose]();
    this.#tell({ event: { case: 'destroyed', value: id } });
  }

  #require(id: string): LoopbackVm {
    const found = this.#vms.get(id);
    if (!found) throw toConnectError(new WrennError('capsule_not_found', { id }));
    return found;
  }

  #change(found: LoopbackVm, fields: VmFields): Vm {
    found.vm = create(VmSchema, { ...found.vm, ...fields });
    this.#tell({ event: { case: 'vm', value: found.vm } });
    return found.vm;
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

function refusal(id: string, status: string, needed: string): WrennError {
  return new WrennError('invalid_state', { id, status, needed });
}

function step(name: string) {
  return [create(TraceStepSchema, { name, offsetMs: 0.5, durationMs: 1 })];
}
