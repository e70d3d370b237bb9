import { createHash } from 'node:crypto';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import type { VmExit } from '@wrenn/hypervisor/hypervisor';
import { WrennError } from '@wrenn/protocol/errors';
import type { Logger } from 'pino';
import { asHostDiskFull } from '../disk/disk-full.ts';
import type { Journal } from '../journal/journal.ts';
import type { VmRecord } from '../journal/vm-record.ts';
import type { ClaimOwner } from '../network/claims.ts';
import type { VmResources } from '../templates/make-snapshot.ts';
import type { TemplateSnapshot, TemplateStore } from '../templates/template-store.ts';
import { freeVm } from './free-vm.ts';
import { KeyedQueue } from './keyed-queue.ts';
import { planVm, type VmPlan } from './plan-vm.ts';
import { recoverVms } from './recover-vms.ts';
import { SnapshotRefusedError, startError, startVm } from './start-vm.ts';
import { Trace } from './trace.ts';
import type { VmEntry, VmRequest } from './vm.ts';
import { type VmChange, VmEvents } from './vm-events.ts';
import { keepConsole, readTail, stripFolder, vmFolder } from './vm-folder.ts';

export interface VmManagerOptions {
  readonly dir: WrennDir;
  readonly journal: Journal;
  readonly resources: VmResources;
  readonly templates: TemplateStore;
  readonly owner: ClaimOwner;
  readonly agentVersion: string;
  readonly log: Logger;
  readonly claimsDir?: string;
}

/** Where a guest is reached. */
export interface GuestAddress {
  readonly hostIp: string;
  /** Fires when the guest is gone. */
  readonly ended: AbortSignal;
}

/** All VMs of this agent. The verbs of one VM run one after the other, those of different VMs side by side. */
export class VmManager {
  readonly #options: VmManagerOptions;
  readonly #entries = new Map<string, VmEntry>();
  readonly #queue = new KeyedQueue();
  readonly #events = new VmEvents<VmRecord>();
  readonly #stopping = new AbortController();
  #accepting = false;

  constructor(options: VmManagerOptions) {
    this.#options = options;
  }

  /** Takes over what an earlier agent left. Before any verb. */
  async recover(signal: AbortSignal): Promise<void> {
    const { running, lost, failed } = await recoverVms(this.#options, signal);
    for (const entry of [...running, ...lost, ...failed]) this.#entries.set(entry.record.id, entry);
    for (const entry of failed) await stripFolder(this.#folder(entry).dir);
    for (const entry of lost) await this.#fail(entry, 'its process ended while no agent ran on its host.');
    for (const entry of running) this.#watchExit(entry);
    this.#accepting = true;
    this.#options.resources.slots.replenish();
  }

  /**
   * Makes a VM, or answers with the one that an equal request made.
   *
   * @throws WrennError of every kind that a start can end with; nothing of the VM is left then.
   */
  create(request: VmRequest, callerSignal: AbortSignal): Promise<VmRecord> {
    const trace = new Trace();
    const asked = performance.now();
    return this.#verb(request.id, callerSignal, async (signal) => {
      trace.add('queue', performance.now() - asked);
      const existing = this.#entries.get(request.id);
      // A removal that could not be finished is finished first.
      if (existing?.record.phase === 'destroying') await this.#remove(existing);
      else if (existing) return sameRequest(existing.record, request);
      try {
        return await this.#create(request, trace, signal);
      } finally {
        this.#options.resources.slots.replenish();
      }
    });
  }

  /** Ends a VM and frees all that it held. An unknown id is a success. */
  destroy(id: string, callerSignal: AbortSignal): Promise<void> {
    return this.#verb(id, callerSignal, async () => {
      const entry = this.#entries.get(id);
      if (!entry) return;
      await this.#remove(entry);
      this.#options.resources.slots.replenish();
    });
  }

  /** @throws WrennError capsule_not_found */
  get(id: string): VmRecord {
    return this.#entry(id).record;
  }

  list(): VmRecord[] {
    return [...this.#entries.values()].map((entry) => entry.record);
  }

  /** Changes from now on, until the signal fires or the agent stops. */
  watch(signal: AbortSignal): AsyncIterable<VmChange<VmRecord>[]> {
    return this.#events.watch(AbortSignal.any([signal, this.#stopping.signal]));
  }

  /** The last bytes of the guest's console, also of one that has ended. */
  async console(id: string, maxBytes: number): Promise<Buffer> {
    const entry = this.#entry(id);
    const folder = this.#folder(entry);
    return readTail(entry.record.phase === 'failed' ? folder.consoleTail : folder.console, maxBytes);
  }

  /** @throws WrennError capsule_not_found, or invalid_state where the guest cannot be reached now. */
  address(id: string): GuestAddress {
    const { record, slot, ended } = this.#entry(id);
    if (record.phase !== 'running' || !slot) {
      throw new WrennError('invalid_state', { id, status: record.phase, needed: 'running' });
    }
    return { hostIp: slot.hostIp, ended: ended.signal };
  }

  /**
   * Finishes the verbs that have begun and lets go of all VMs, which go on running.
   *
   * @param graceMs After this time, verbs that have not finished are undone.
   */
  async close(graceMs: number): Promise<void> {
    this.#accepting = false;
    const timer = setTimeout(() => this.#stopping.abort(new WrennError('shutting_down')), graceMs);
    await this.#queue.idle();
    clearTimeout(timer);
    this.#stopping.abort(new WrennError('shutting_down'));
    for (const entry of this.#entries.values()) entry.process?.release();
  }

  #verb<T>(id: string, callerSignal: AbortSignal, action: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (!this.#accepting) return Promise.reject(new WrennError('shutting_down'));
    const signal = AbortSignal.any([callerSignal, this.#stopping.signal]);
    return this.#queue.run(id, async () => {
      // Its caller may have left while it waited.
      signal.throwIfAborted();
      return action(signal);
    });
  }

  async #create(request: VmRequest, trace: Trace, signal: AbortSignal): Promise<VmRecord> {
    const { dir, resources, templates, log } = this.#options;
    const plan = await trace.step('plan', () => planVm(dir, resources.hypervisor.identity, request));
    for (let attempt = 1; ; attempt++) {
      const snapshot = await trace.step('template', () =>
        templates.get(plan, signal).catch((error: unknown) => Promise.reject(startError(error, signal))),
      );
      const entry: VmEntry = { record: this.#newRecord(request, plan), ended: new AbortController() };
      this.#put(entry);
      try {
        await startVm(this.#options, entry, plan, snapshot, trace, signal);
        this.#watchExit(entry);
        this.#publish(entry);
        log.info({ vm: request.id, trace: trace.steps }, 'VM started');
        return entry.record;
      } catch (error) {
        const failure = startError(error, signal);
        const console = await readTail(this.#folder(entry).console, 2000).catch(() => Buffer.alloc(0));
        log.error({ vm: request.id, err: failure, console: console.toString() }, 'VM could not be started');
        await this.#remove(entry).catch((rest: unknown) => {
          log.error({ vm: request.id, err: rest }, 'what is left of a VM that did not start cannot be freed yet');
        });
        const worthAnother = attempt === 1 && !signal.aborted && !asHostDiskFull(failure);
        if (!worthAnother || !(await this.#mendSnapshot(snapshot, error))) throw failure;
      }
    }
  }

  /** Whether a new snapshot will be made in place of the one from which a VM did not start. */
  async #mendSnapshot(snapshot: TemplateSnapshot, error: unknown): Promise<boolean> {
    if (!(error instanceof SnapshotRefusedError)) return this.#options.templates.discardIfBroken(snapshot);
    await this.#options.templates.discard(snapshot);
    return true;
  }

  /** Follows the VM's process to its end. */
  #watchExit(entry: VmEntry): void {
    void entry.process?.exited.then((exit) =>
      this.#queue.run(entry.record.id, async () => {
        // It may be gone already, or be another VM of the same id.
        if (this.#entries.get(entry.record.id) !== entry || entry.record.phase !== 'running') return;
        await this.#fail(entry, exitSentence(exit)).catch((error: unknown) => {
          this.#options.log.error({ vm: entry.record.id, err: error }, 'the rest of a VM that ended cannot be freed');
        });
        this.#options.resources.slots.replenish();
      }),
    );
  }

  /** Frees what an ended VM held and keeps why it ended. */
  async #fail(entry: VmEntry, problem: string): Promise<void> {
    const { log, resources } = this.#options;
    const { id } = entry.record;
    const folder = this.#folder(entry);
    log.warn({ vm: id, problem }, 'VM ended');
    const { slot: _slot, process, ...kept } = entry.record;
    const reason = new WrennError('capsule_ended', { id, problem });
    entry.record = { ...kept, phase: 'failed', reason: { code: reason.code, text: reason.message } };
    this.#publish(entry);
    entry.ended.abort();
    await keepConsole(folder.dir).catch((error: unknown) => log.warn({ vm: id, err: error }, 'console is not kept'));
    await this.#write(entry);
    await freeVm(resources, process ? { ...entry, record: { ...entry.record, process } } : entry);
    delete entry.slot;
    delete entry.process;
    await stripFolder(folder.dir);
  }

  /** Ends the VM, frees everything and forgets it. Can be repeated when it fails half-way. */
  async #remove(entry: VmEntry): Promise<void> {
    const { id } = entry.record;
    entry.record = { ...entry.record, phase: 'destroying' };
    this.#publish(entry);
    await this.#write(entry);
    await freeVm(this.#options.resources, entry);
    await this.#options.journal.end(id);
    this.#entries.delete(id);
    this.#events.publish({ id, vm: undefined });
  }

  /** Writes the record where that only serves a restart: freeing must go on, above all when the disk is full. */
  async #write(entry: VmEntry): Promise<void> {
    await this.#options.journal.write(entry.record).catch((error: unknown) => {
      this.#options.log.warn({ vm: entry.record.id, err: error }, 'the journal cannot be written');
    });
  }

  #put(entry: VmEntry): void {
    this.#entries.set(entry.record.id, entry);
    this.#publish(entry);
  }

  #publish({ record }: VmEntry): void {
    this.#events.publish({ id: record.id, vm: record });
  }

  #entry(id: string): VmEntry {
    const entry = this.#entries.get(id);
    if (!entry) throw new WrennError('capsule_not_found', { id });
    return entry;
  }

  #folder(entry: VmEntry) {
    return vmFolder(this.#options.dir.capsule(entry.record.id));
  }

  #newRecord(request: VmRequest, plan: VmPlan): VmRecord {
    return {
      version: 1,
      id: request.id,
      phase: 'creating',
      template: request.template,
      imageSha256: plan.image.manifest.sha256,
      shape: { ...request.shape },
      requestedDiskMb: request.diskMb,
      diskMb: plan.diskMb,
      initDigest: initDigest(request),
      createdAt: new Date().toISOString(),
      versions: {
        kernel_version: plan.kernel.version,
        hypervisor_version: this.#options.resources.hypervisor.identity.version,
        agent_version: this.#options.agentVersion,
        envd_version: plan.image.manifest.envdVersion,
      },
      trace: [],
    };
  }
}

/** The record, when the request is the one that made it. */
function sameRequest(record: VmRecord, request: VmRequest): VmRecord {
  const same =
    record.template === request.template &&
    record.shape.vcpus === request.shape.vcpus &&
    record.shape.memoryMb === request.shape.memoryMb &&
    record.requestedDiskMb === request.diskMb &&
    record.initDigest === initDigest(request);
  if (!same) throw new WrennError('conflict', { what: `Another capsule with the id ${request.id}` });
  return record;
}

/** The settings hold secrets, which the journal must not; their hash tells them apart as well. */
function initDigest({ init }: VmRequest): string {
  const envs = Object.entries(init.envs).sort(([a], [b]) => (a < b ? -1 : 1));
  const text = JSON.stringify([init.accessToken, envs, init.user, init.workdir, init.hostname]);
  return createHash('sha256').update(text).digest('hex');
}

function exitSentence({ reason, detail }: VmExit): string {
  switch (reason) {
    case 'guest':
      return detail;
    case 'killed':
      return 'its process was killed on the host.';
    case 'crashed':
      return 'its hypervisor crashed.';
  }
}
