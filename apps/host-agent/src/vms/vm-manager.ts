import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { WrennError } from '@wrenn/protocol/errors';
import type { Logger } from 'pino';
import type { Journal } from '../journal/journal.ts';
import type { VmRecord } from '../journal/vm-record.ts';
import type { ClaimOwner } from '../network/claims.ts';
import { deleteHibernated, hibernate } from '../objects/hibernation.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { imageKey } from '../objects/stored-image.ts';
import type { PooledVm } from '../pool/pooled-vm.ts';
import type { StartActivity } from '../pool/start-activity.ts';
import type { WarmPool } from '../pool/warm-pool.ts';
import { settleAll } from '../processes/settle-all.ts';
import { findDamage } from '../snapshots/sealed-folder.ts';
import type { SleepingVm, SnapshotStore } from '../snapshots/snapshot-store.ts';
import type { ImageExchange } from '../templates/image-exchange.ts';
import type { VmResources } from '../templates/make-snapshot.ts';
import type { TemplateStore } from '../templates/template-store.ts';
import { compactInBackground, stopCompaction } from './compact-disk.ts';
import { createVm, isSameRequest } from './create-vm.ts';
import { publishSnapshot } from './exchange-snapshot.ts';
import { checkChildren, type ForkChild, forkVm } from './fork-vm.ts';
import { hibernationSource } from './hibernation-source.ts';
import { KeyedQueue } from './keyed-queue.ts';
import { pauseVm } from './pause-vm.ts';
import { recoverVms } from './recover-vms.ts';
import { type ResumeRequest, resumeVm } from './resume-vm.ts';
import { snapshotRunningVm, snapshotSleepingVm } from './snapshot-vm.ts';
import { Trace, type TraceStep } from './trace.ts';
import type { VmEntry, VmRequest } from './vm.ts';
import type { VmContext } from './vm-context.ts';
import { type VmChange, VmEvents } from './vm-events.ts';
import { readTail, stripFolder } from './vm-folder.ts';
import { VmRegistry } from './vm-registry.ts';
import { initDigest } from './vm-settings.ts';
import type { VmView } from './vm-view.ts';

export interface VmManagerOptions {
  readonly dir: WrennDir;
  readonly journal: Journal;
  readonly resources: VmResources;
  readonly templates: TemplateStore;
  readonly images: ImageExchange;
  readonly snapshots: SnapshotStore;
  readonly objects: ObjectStore;
  /** Makes room on the disk for what comes from other hosts. @throws WrennError host_disk_full */
  readonly makeRoomForFetched: (bytes: number) => Promise<void>;
  readonly pool: WarmPool<PooledVm>;
  /** Told of every start, so that work ahead of need waits. */
  readonly activity: StartActivity;
  readonly owner: ClaimOwner;
  readonly agentVersion: string;
  /** See VmRegistryOptions. */
  readonly beforeEnd?: ((record: VmRecord) => void) | undefined;
  readonly log: Logger;
  readonly claimsDir?: string;
}

/** Where a guest is reached. */
export interface GuestAddress {
  readonly hostIp: string;
  /** Fires when the guest is gone. */
  readonly ended: AbortSignal;
}

/** What a verb made, and what it took. */
export interface Traced<T> {
  readonly result: T;
  readonly trace: readonly TraceStep[];
}

/** What `verify` found of one file. */
export interface FileReport {
  readonly name: string;
  readonly sizeBytes: number;
  /** Undefined: as it was written. */
  readonly problem: string | undefined;
}

/** All VMs of this agent. The verbs of one VM run one after the other, those of different VMs side by side. */
export class VmManager {
  readonly #options: VmManagerOptions;
  readonly #context: VmContext;
  readonly #registry: VmRegistry;
  readonly #queue = new KeyedQueue();
  readonly #events = new VmEvents<VmView>();
  readonly #stopping = new AbortController();
  #accepting = false;
  #closed = false;

  constructor(options: VmManagerOptions) {
    const [queue, events] = [this.#queue, this.#events];
    this.#options = options;
    this.#registry = new VmRegistry({ ...options, queue, events });
    const makeRoom = () => options.pool.evict();
    this.#context = { ...options, queue, registry: this.#registry, makeRoom };
  }

  /** Takes over what an earlier agent left. Before any verb. */
  async recover(signal: AbortSignal): Promise<void> {
    const registry = this.#registry;
    const { running, lost, failed } = await recoverVms(this.#options, signal);
    for (const entry of [...running, ...lost, ...failed]) registry.put(entry);
    for (const entry of failed) await stripFolder(registry.folder(entry).dir);
    for (const entry of lost) await registry.fail(entry, 'its process ended while no agent ran on its host.');
    for (const entry of running) {
      registry.watchExit(entry);
      compactInBackground(this.#context, entry);
    }
    this.#accepting = true;
    this.#options.resources.slots.replenish();
  }

  /**
   * Makes a VM, or answers with the one that an equal request made.
   *
   * @throws WrennError of every kind that a start can end with; nothing of the VM is left then.
   */
  create(request: VmRequest, callerSignal: AbortSignal): Promise<VmView> {
    return this.#starting(request.id, callerSignal, async (trace, signal) => {
      const existing = await this.#existing(request.id);
      if (existing && isSameRequest(existing, request)) return;
      if (existing || this.#options.snapshots.latest(request.id)) {
        throw new WrennError('conflict', { what: `Another capsule with the id ${request.id}` });
      }
      await createVm(this.#context, request, trace, signal);
    });
  }

  /** Puts a VM to sleep, or answers that it sleeps in this generation. */
  pause(id: string, generation: number, callerSignal: AbortSignal): Promise<Traced<VmView>> {
    return this.#traced(id, callerSignal, async (trace, signal) => {
      const entry = await this.#existing(id);
      const last = this.#options.snapshots.latest(id)?.generation ?? 0;
      if (!entry && last === generation) return this.get(id);
      const running = requireRunning(id, entry);
      if (generation <= last) {
        throw new WrennError('invalid_request', { problem: `generation ${generation} of ${id} exists already.` });
      }
      await pauseVm(this.#context, running, generation, trace, signal);
      this.#options.resources.slots.replenish();
      return this.get(id);
    });
  }

  /** Wakes a sleeping VM, or one that failed and has slept before; or answers that it was woken by an equal request. */
  resume(request: ResumeRequest, callerSignal: AbortSignal): Promise<VmView> {
    const { id } = request;
    return this.#starting(id, callerSignal, async (trace, signal) => {
      const existing = await this.#existing(id);
      if (existing?.record.phase === 'running') {
        const { generation, initDigest: digest } = existing.record;
        if (generation === request.generation && digest === initDigest(request.init)) return;
        throw new WrennError('invalid_state', { id, status: 'running', needed: 'paused' });
      }
      if (existing) await this.#registry.remove(existing);
      await resumeVm(this.#context, request, trace, signal);
    });
  }

  /** Makes new VMs of a running one, or answers with those that an equal request made. */
  fork(id: string, children: readonly ForkChild[], callerSignal: AbortSignal): Promise<Traced<VmView[]>> {
    return this.#traced(id, callerSignal, async (trace, signal) => {
      checkChildren(id, children);
      const views = () => children.map((child) => this.get(child.id));
      const there = children.map((child) => this.#registry.get(child.id));
      const known = (child: ForkChild, index: number) => {
        const record = there[index]?.record;
        return record?.phase === 'running' && record.initDigest === initDigest(child.init);
      };
      if (children.every(known)) return views();
      const source = requireRunning(id, await this.#existing(id));
      using _busy = this.#options.activity.begin();
      for (const entry of there) if (entry) await this.#registry.remove(entry);
      await forkVm(this.#context, source, children, trace, signal);
      this.#options.resources.slots.replenish();
      return views();
    });
  }

  /** Keeps the state of a VM, running or sleeping, as a snapshot that VMs are made of. */
  snapshot(id: string, snapshotId: string, callerSignal: AbortSignal): Promise<Traced<SleepingVm>> {
    const take = async (trace: Trace, signal: AbortSignal) => {
      const made = this.#options.snapshots.latest(snapshotId);
      if (made) return made;
      const entry = await this.#existing(id);
      const sleeping = this.#options.snapshots.latest(id);
      if (!entry && sleeping) return snapshotSleepingVm(this.#context, sleeping, snapshotId, trace, signal);
      return snapshotRunningVm(this.#context, requireRunning(id, entry), snapshotId, trace, signal);
    };
    // Also in the snapshot's own order, so that its removal waits for the end of its making.
    return this.#traced(id, callerSignal, (trace, signal) => this.#queue.run(snapshotId, () => take(trace, signal)));
  }

  /** Puts an image of this host into the object store, for others. @returns where it is */
  async publishTemplate(name: string, callerSignal: AbortSignal): Promise<string> {
    const signal = AbortSignal.any([callerSignal, this.#stopping.signal]);
    const { manifest } = await this.#options.images.publish(name, signal);
    return imageKey(manifest.sha256);
  }

  /** Puts a snapshot into the object store, where it is not yet. @returns where it is */
  publishSnapshot(snapshotId: string, callerSignal: AbortSignal): Promise<string> {
    return this.#verb(snapshotId, callerSignal, (signal) => publishSnapshot(this.#context, snapshotId, signal));
  }

  /** Removes a snapshot. VMs that were made of it keep what they need. An unknown id is a success. */
  deleteSnapshot(snapshotId: string, callerSignal: AbortSignal): Promise<void> {
    return this.#verb(snapshotId, callerSignal, async () => {
      await this.#options.snapshots.remove(snapshotId);
      // VMs that wait for tenants of it are given up.
      this.#options.pool.refill();
    });
  }

  /** Reads every file of a sleeping VM and compares it with its sum. */
  verify(id: string, callerSignal: AbortSignal): Promise<{ generation: number; files: FileReport[] }> {
    return this.#verb(id, callerSignal, async (signal) => {
      const sleeping = this.#requireSleeping(id);
      const { manifest, generation, dir, problem } = sleeping;
      if (!manifest) throw problem ?? new WrennError('capsule_not_found', { id });
      const files: FileReport[] = [];
      for (const [name, sum] of Object.entries(manifest.files)) {
        files.push({ name, sizeBytes: sum.sizeBytes, problem: await findDamage(dir, name, sum, signal) });
      }
      if (files.some((file) => file.problem)) await this.#options.snapshots.recheck(sleeping, signal);
      this.#registry.publish(id);
      return { generation, files };
    });
  }

  /** Copies a sleeping VM into the object store and reads it back there. */
  hibernate(
    id: string,
    generation: number,
    objectKey: string,
    callerSignal: AbortSignal,
  ): Promise<Traced<{ storedBytes: number }>> {
    return this.#traced(id, callerSignal, async (trace, signal) => {
      const { snapshots, objects } = this.#options;
      const sleeping = this.#requireSleeping(id, generation);
      const manifest = await trace.step('check', async () => {
        const found = await snapshots.require(sleeping, false);
        const damage = await snapshots.recheck(sleeping, signal);
        if (damage) throw damage;
        return found;
      });
      const source = hibernationSource(objectKey, sleeping.dir, manifest);
      return trace.step('store', () => hibernate(objects, source, signal));
    });
  }

  /** Frees what this host has of a VM that is in the object store. An unknown id is a success. */
  forget(id: string, generation: number, callerSignal: AbortSignal): Promise<void> {
    return this.#verb(id, callerSignal, async () => {
      const found = this.#options.snapshots.latest(id);
      if (found?.generation !== generation) return;
      if (await this.#existing(id)) throw new WrennError('invalid_state', { id, status: 'running', needed: 'paused' });
      await this.#options.snapshots.remove(id);
      this.#registry.publish(id);
    });
  }

  /** Removes a VM from the object store. An unknown key is a success. */
  async deleteHibernated(objectKey: string, callerSignal: AbortSignal): Promise<void> {
    const signal = AbortSignal.any([callerSignal, this.#stopping.signal]);
    await deleteHibernated(this.#options.objects, objectKey, signal);
  }

  /** Ends a VM, running or sleeping, and frees all that it held. An unknown id is a success. */
  destroy(id: string, callerSignal: AbortSignal): Promise<void> {
    return this.#verb(id, callerSignal, async () => {
      const entry = this.#registry.get(id);
      if (entry) {
        await stopCompaction(entry);
        await this.#registry.remove(entry);
      }
      await this.#options.snapshots.remove(id);
      this.#registry.publish(id);
      this.#options.resources.slots.replenish();
    });
  }

  /** @throws WrennError capsule_not_found */
  get(id: string): VmView {
    const view = this.#registry.view(id);
    if (!view) throw new WrennError('capsule_not_found', { id });
    return view;
  }

  /** Whether verbs are carried out. */
  get state(): 'recovering' | 'accepting' | 'stopping' {
    if (this.#closed) return 'stopping';
    return this.#accepting ? 'accepting' : 'recovering';
  }

  list(): VmView[] {
    const ids = new Set([...this.#registry.values().map(({ record }) => record.id), ...this.#sleepingIds()]);
    return [...ids].map((id) => this.get(id));
  }

  /** What runs, or stands still for a moment, with the folders of its disks. */
  running(): { readonly record: VmRecord; readonly dir: string }[] {
    const awake = this.#registry.values().filter(({ record: { phase } }) => phase === 'running' || phase === 'pausing');
    return awake.map((entry) => ({ record: entry.record, dir: this.#registry.folder(entry).dir }));
  }

  /** Changes from now on, until the signal fires or the agent stops. */
  watch(signal: AbortSignal): AsyncIterable<VmChange<VmView>[]> {
    return this.#events.watch(AbortSignal.any([signal, this.#stopping.signal]));
  }

  /** The last bytes of the guest's console, also of one that has ended. */
  async console(id: string, maxBytes: number): Promise<Buffer> {
    const entry = this.#registry.require(id);
    const folder = this.#registry.folder(entry);
    return readTail(entry.record.phase === 'failed' ? folder.consoleTail : folder.console, maxBytes);
  }

  /** @throws WrennError capsule_not_found, or invalid_state where the guest cannot be reached now. */
  address(id: string): GuestAddress {
    const { record, slot, ended } = this.#registry.require(id);
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
    this.#closed = true;
    const timer = setTimeout(() => this.#stopping.abort(new WrennError('shutting_down')), graceMs);
    await this.#queue.idle();
    clearTimeout(timer);
    this.#stopping.abort(new WrennError('shutting_down'));
    await settleAll(this.#registry.values().map(stopCompaction));
    for (const entry of this.#registry.values()) entry.process?.release();
  }

  #sleepingIds(): string[] {
    return this.#options.snapshots.capsuleIds();
  }

  #requireSleeping(id: string, generation?: number): SleepingVm {
    const entry = this.#registry.get(id);
    const sleeping = this.#options.snapshots.latest(id);
    if (entry && entry.record.phase !== 'failed') {
      throw new WrennError('invalid_state', { id, status: entry.record.phase, needed: 'paused' });
    }
    if (!sleeping || (generation !== undefined && sleeping.generation !== generation)) {
      throw new WrennError('capsule_not_found', { id });
    }
    return sleeping;
  }

  /** The VM that the capsule has. A removal that could not be finished is finished first. */
  async #existing(id: string): Promise<VmEntry | undefined> {
    const entry = this.#registry.get(id);
    if (!entry) return undefined;
    const { phase, pausing } = entry.record;
    if (phase !== 'destroying' && phase !== 'pausing') return entry;
    // A pause that is not under way any more is complete, or it would run again.
    const { snapshots } = this.#options;
    if (pausing !== undefined && snapshots.latest(id)?.generation !== pausing) await snapshots.add(id, pausing);
    await this.#registry.remove(entry);
    return undefined;
  }

  /** A verb that ends with a running VM. */
  #starting(
    id: string,
    callerSignal: AbortSignal,
    action: (trace: Trace, signal: AbortSignal) => Promise<void>,
  ): Promise<VmView> {
    return this.#traced(id, callerSignal, async (trace, signal) => {
      using _busy = this.#options.activity.begin();
      try {
        await action(trace, signal);
        return this.get(id);
      } finally {
        this.#options.resources.slots.replenish();
      }
    }).then(({ result }) => result);
  }

  async #traced<T>(
    id: string,
    callerSignal: AbortSignal,
    action: (trace: Trace, signal: AbortSignal) => Promise<T>,
  ): Promise<Traced<T>> {
    const trace = new Trace();
    const asked = performance.now();
    const result = await this.#verb(id, callerSignal, (signal) => {
      trace.add('queue', asked);
      return action(trace, signal);
    });
    return { result, trace: trace.steps };
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
}

function requireRunning(id: string, entry: VmEntry | undefined): VmEntry {
  if (!entry) throw new WrennError('capsule_not_found', { id });
  const { phase, reason } = entry.record;
  if (phase === 'running') return entry;
  if (phase === 'failed') throw new WrennError('capsule_ended', { id, problem: reason?.text ?? 'it has failed' });
  throw new WrennError('invalid_state', { id, status: phase, needed: 'running' });
}
