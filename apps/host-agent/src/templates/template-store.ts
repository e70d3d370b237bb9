import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import type { VmShape } from '@wrenn/hypervisor/hypervisor';
import type { Logger } from 'pino';
import { rejectOnAbort } from '../processes/reject-on-abort.ts';
import { checkContent, checkFiles, readManifest, removeFolder } from '../snapshots/sealed-folder.ts';
import type { SnapshotManifest } from '../snapshots/snapshot-manifest.ts';
import { type StartSource, startSource } from '../snapshots/start-source.ts';
import { GuestNotUpError, makeTemplateSnapshot, type SnapshotSource, type VmResources } from './make-snapshot.ts';
import { type TemplateInputs, templateKey } from './template-key.ts';

/** A cold boot under emulation on a busy machine, and the writing of all memory. */
const MAKE_TIMEOUT_MS = 300_000;

/** A template's memory snapshot that VMs start from. */
export interface TemplateSnapshot {
  readonly key: string;
  readonly inputs: TemplateInputs;
  readonly source: StartSource;
}

export interface TemplateStoreOptions {
  readonly dir: WrennDir;
  readonly resources: VmResources;
  readonly log: Logger;
}

/** The memory snapshots of templates on this host. Each is made by the first VM that needs it, and kept. */
export class TemplateStore {
  readonly #options: TemplateStoreOptions;
  /** Snapshots that are there, are being checked or are being made. */
  readonly #snapshots = new Map<string, Promise<TemplateSnapshot | undefined>>();
  /** Those of them that can be used now. */
  readonly #ready = new Map<string, TemplateSnapshot>();
  readonly #closed = new AbortController();
  #tidying: Promise<void> | undefined;

  constructor(options: TemplateStoreOptions) {
    this.#options = options;
  }

  /** Finds the snapshots that are there, and removes rests of unfinished ones. Before anything else uses the store. */
  async open(): Promise<void> {
    const { templateSnapshots } = this.#options.dir;
    for (const name of await readdir(templateSnapshots)) {
      if (/^[0-9a-f]{32}$/.test(name)) this.#snapshots.set(name, this.#check(name, checkFiles));
      else await removeFolder(join(templateSnapshots, name));
    }
    await Promise.all(this.#snapshots.values());
  }

  /** The snapshot for these inputs. Callers that come while it is being made wait for the same one. */
  async get(source: SnapshotSource, signal: AbortSignal): Promise<TemplateSnapshot> {
    const key = templateKey(source.inputs);
    for (;;) {
      const known = this.#snapshots.get(key);
      const found = known && (await rejectOnAbort(known, signal));
      if (found) return found;
      if (this.#snapshots.get(key) !== known) continue;
      // What one caller began is finished for all, even when that caller leaves.
      const made = this.#make(key, source);
      this.#snapshots.set(key, made);
      made.catch(() => this.#snapshots.delete(key));
    }
  }

  /** Whether VMs may still be started from it. */
  has(snapshot: TemplateSnapshot): boolean {
    return this.#ready.get(snapshot.key) === snapshot;
  }

  /** Whether a snapshot from which a VM did not start is damaged. It is removed then, and the next `get` makes it anew. */
  async discardIfBroken(snapshot: TemplateSnapshot): Promise<boolean> {
    // Otherwise somebody else has replaced it already.
    if (this.#ready.get(snapshot.key) !== snapshot) return true;
    return !(await this.#recheck(snapshot.key));
  }

  /** Removes a snapshot; the next `get` makes it anew. */
  async discard(snapshot: TemplateSnapshot): Promise<void> {
    if (this.#ready.get(snapshot.key) === snapshot) await this.#remove(snapshot.key);
  }

  /**
   * Removes, in the background, snapshots for which `isCurrent` does not hold (of images, kernels or hypervisors that
   * are there no more), then reads the others once and removes those that a failing disk has damaged.
   */
  tidy(isCurrent: (inputs: TemplateInputs) => Promise<boolean>): void {
    this.#tidying = this.#prune(isCurrent)
      .then(() => this.#verify())
      .catch((error: unknown) => {
        this.#options.log.warn({ err: error }, 'template snapshots cannot be tidied up');
      });
  }

  async #verify(): Promise<void> {
    for (const key of [...this.#ready.keys()]) {
      const snapshot = this.#ready.get(key);
      if (this.#closed.signal.aborted || !snapshot) continue;
      const dir = join(this.#options.dir.templateSnapshots, key);
      // Not `recheck` at once: VMs start from it meanwhile, and nearly always it is good.
      const good = await readManifest(dir)
        .then((manifest) => checkContent(dir, manifest, this.#closed.signal))
        .then(
          () => true,
          () => this.#closed.signal.aborted,
        );
      if (!good && this.#ready.get(key) === snapshot) await this.#recheck(key);
    }
  }

  /** Path of a layer with that sum; it may be removed at any time. */
  findFile(sha256: string): string | undefined {
    for (const { source } of this.#ready.values()) {
      const found = Object.entries(source.layerSums).find(([, sum]) => sum.sha256 === sha256);
      if (found) return join(source.dir, found[0]);
    }
    return undefined;
  }

  /** Shapes that have a snapshot of this image. */
  warmShapes(imageSha256: string): VmShape[] {
    const inputs = [...this.#ready.values()].map((snapshot) => snapshot.inputs);
    return inputs.filter((input) => input.imageSha256 === imageSha256).map((input) => input.shape);
  }

  /** VMs that started from a snapshot keep its disk by a link of their own. */
  async #prune(isCurrent: (inputs: TemplateInputs) => Promise<boolean>): Promise<void> {
    for (const [key, entry] of this.#snapshots) {
      const snapshot = await entry.catch(() => undefined);
      if (this.#closed.signal.aborted) return;
      if (!snapshot || (await isCurrent(snapshot.inputs)) || this.#snapshots.get(key) !== entry) continue;
      await this.#remove(key);
      this.#options.log.info({ key, inputs: snapshot.inputs }, 'removed an outdated template snapshot');
    }
  }

  /** Stops what is being made and waits until its rests are gone. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort(new Error('the agent is stopping'));
    await Promise.allSettled([...this.#snapshots.values(), this.#tidying]);
  }

  async #make(key: string, source: SnapshotSource): Promise<TemplateSnapshot> {
    const { dir, resources, log } = this.#options;
    const final = join(dir.templateSnapshots, key);
    const signal = AbortSignal.any([this.#closed.signal, AbortSignal.timeout(MAKE_TIMEOUT_MS)]);
    const started = performance.now();
    log.info({ key, inputs: source.inputs }, 'making a template snapshot');
    try {
      await makeTemplateSnapshot(resources, source, final, log, signal);
    } catch (error) {
      // Emulated guests have been seen to hang while they boot, about once in a hundred times.
      if (!(error instanceof GuestNotUpError) || signal.aborted) throw error;
      log.warn({ key }, 'a template did not come up; booting it once more');
      await makeTemplateSnapshot(resources, source, final, log, signal);
    }
    log.info({ key, durationMs: Math.round(performance.now() - started) }, 'template snapshot made');
    return this.#use(final, key, await readManifest(final));
  }

  async #remove(key: string): Promise<void> {
    this.#ready.delete(key);
    const removal = removeFolder(join(this.#options.dir.templateSnapshots, key)).then(() => undefined);
    // Callers of `get` wait until the place is free.
    this.#snapshots.set(key, removal);
    await removal;
  }

  /** Checks content now; callers of `get` wait for it. */
  async #recheck(key: string): Promise<boolean> {
    this.#ready.delete(key);
    const check = this.#check(key, checkContent);
    this.#snapshots.set(key, check);
    return (await check) !== undefined;
  }

  /** The snapshot in the folder; undefined, and the folder removed, when it cannot be used. */
  async #check(key: string, check: typeof checkFiles): Promise<TemplateSnapshot | undefined> {
    const dir = join(this.#options.dir.templateSnapshots, key);
    try {
      const manifest = await readManifest(dir);
      await check(dir, manifest);
      return this.#use(dir, key, manifest);
    } catch (error) {
      this.#options.log.warn({ key, err: error }, 'a template snapshot cannot be used; it will be made anew');
      await removeFolder(dir);
      return undefined;
    }
  }

  #use(dir: string, key: string, manifest: SnapshotManifest): TemplateSnapshot {
    const { inputs } = manifest;
    if (!inputs || templateKey(inputs) !== key) throw new Error('it belongs to another key');
    const ready = { key, inputs, source: startSource(dir, manifest) };
    this.#ready.set(key, ready);
    return ready;
  }
}
