import type { WrennDir } from '@wrenn/config/wrenn-dir';
import type { VmExit } from '@wrenn/hypervisor/hypervisor';
import { WrennError } from '@wrenn/protocol/errors';
import type { Logger } from 'pino';
import type { Journal } from '../journal/journal.ts';
import type { VmRecord } from '../journal/vm-record.ts';
import type { SnapshotStore } from '../snapshots/snapshot-store.ts';
import type { VmResources } from '../templates/make-snapshot.ts';
import { freeVm } from './free-vm.ts';
import type { KeyedQueue } from './keyed-queue.ts';
import type { VmEntry } from './vm.ts';
import type { VmEvents } from './vm-events.ts';
import { keepConsole, stripFolder, vmFolder } from './vm-folder.ts';
import type { VmView } from './vm-view.ts';

export interface VmRegistryOptions {
  readonly dir: WrennDir;
  readonly journal: Journal;
  readonly resources: VmResources;
  readonly snapshots: SnapshotStore;
  readonly events: VmEvents<VmView>;
  /** The verbs of one capsule run one after the other in it. */
  readonly queue: KeyedQueue;
  /** Told of a VM that ran, right before what it held of the machine is freed. */
  readonly beforeEnd?: ((record: VmRecord) => void) | undefined;
  readonly log: Logger;
}

/** The VMs that capsules have, by the capsule's id: what is known of each, on disk and to watchers, and its end. */
export class VmRegistry {
  readonly #options: VmRegistryOptions;
  readonly #entries = new Map<string, VmEntry>();

  constructor(options: VmRegistryOptions) {
    this.#options = options;
  }

  get(id: string): VmEntry | undefined {
    return this.#entries.get(id);
  }

  /** @throws WrennError capsule_not_found */
  require(id: string): VmEntry {
    const entry = this.#entries.get(id);
    if (!entry) throw new WrennError('capsule_not_found', { id });
    return entry;
  }

  values(): VmEntry[] {
    return [...this.#entries.values()];
  }

  put(entry: VmEntry): void {
    this.#entries.set(entry.record.id, entry);
    this.publish(entry.record.id);
  }

  /** What callers see of a capsule; undefined where this host has nothing of it. */
  view(id: string): VmView | undefined {
    const record = this.#entries.get(id)?.record;
    const sleeping = this.#options.snapshots.latest(id);
    return record || sleeping ? { id, record, sleeping } : undefined;
  }

  publish(id: string): void {
    this.#options.events.publish({ id, vm: this.view(id) });
  }

  folder(entry: VmEntry) {
    return vmFolder(this.#options.dir.capsule(entry.record.vmId));
  }

  /** Follows the VM's process to its end, and tells where it stands still because of the host. */
  watchExit(entry: VmEntry): void {
    const { queue, resources, log } = this.#options;
    entry.process?.onDiskStop((stop) => {
      const { id } = entry.record;
      if (stop) log.warn({ vm: id, stop }, 'a guest waits because the disk of its host is full');
      else log.info({ vm: id }, 'a guest no longer waits for the disk of its host');
    });
    void entry.process?.exited.then((exit) =>
      queue.run(entry.record.id, async () => {
        // It may be gone already, or be another VM of the same capsule.
        if (this.#entries.get(entry.record.id) !== entry || entry.record.phase !== 'running') return;
        await this.fail(entry, exitSentence(exit)).catch((error: unknown) => {
          log.error({ vm: entry.record.id, err: error }, 'the rest of a VM that ended cannot be freed');
        });
        resources.slots.replenish();
      }),
    );
  }

  /** Frees what an ended VM held and keeps why it ended. */
  async fail(entry: VmEntry, problem: string): Promise<void> {
    const { log, resources } = this.#options;
    const { id } = entry.record;
    const folder = this.folder(entry);
    log.warn({ vm: id, problem }, 'VM ended');
    this.#options.beforeEnd?.(entry.record);
    // Before anybody hears of it: they ask for its last words.
    await keepConsole(folder.dir).catch((error: unknown) => log.warn({ vm: id, err: error }, 'console is not kept'));
    const { slot: _slot, process, pausing: _pausing, ...kept } = entry.record;
    const reason = new WrennError('capsule_ended', { id, problem });
    entry.record = { ...kept, phase: 'failed', reason: { code: reason.code, text: reason.message } };
    this.publish(id);
    entry.ended.abort();
    await this.#write(entry);
    await freeVm(resources, process ? { ...entry, record: { ...entry.record, process } } : entry);
    delete entry.slot;
    delete entry.process;
    await stripFolder(folder.dir);
  }

  /** Ends the VM, frees everything and forgets it; its snapshots stay. Can be repeated when it fails half-way. */
  async remove(entry: VmEntry): Promise<void> {
    const { id, vmId } = entry.record;
    if (entry.record.phase !== 'pausing') {
      entry.record = { ...entry.record, phase: 'destroying' };
      this.publish(id);
      await this.#write(entry);
    }
    this.#options.beforeEnd?.(entry.record);
    await freeVm(this.#options.resources, entry);
    await this.#options.journal.end(vmId);
    this.#entries.delete(id);
    this.publish(id);
  }

  /** Writes the record where that only serves a restart: freeing must go on, above all when the disk is full. */
  async #write(entry: VmEntry): Promise<void> {
    await this.#options.journal.write(entry.record).catch((error: unknown) => {
      this.#options.log.warn({ vm: entry.record.id, err: error }, 'the journal cannot be written');
    });
  }
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
