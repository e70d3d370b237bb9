import { mkdir, readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory } from '@wrenn/config/atomic-file';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import type { HypervisorIdentity } from '@wrenn/hypervisor/hypervisor';
import { WrennError } from '@wrenn/protocol/errors';
import { isId } from '@wrenn/protocol/ids';
import type { Logger } from 'pino';
import {
  checkContent,
  checkFiles,
  damagedError,
  manifestVersion,
  ownBytes,
  readManifest,
  removeFolder,
} from './sealed-folder.ts';
import { findMismatch, type SnapshotManifest } from './snapshot-manifest.ts';

/** A complete snapshot on this host: a capsule's last generation, or one that a user keeps to make capsules of. */
export interface SleepingVm {
  /** Id of the capsule or of the user's snapshot. */
  readonly id: string;
  readonly generation: number;
  readonly dir: string;
  /** Undefined where this version cannot read it. */
  readonly manifest: SnapshotManifest | undefined;
  /** Bytes on disk that it holds beyond what it shares. */
  readonly ownBytes: number;
  /** Why it cannot be restored as it is, as far as is known. */
  readonly problem: WrennError | undefined;
}

export interface SnapshotStoreOptions {
  readonly dir: WrennDir;
  readonly identity: HypervisorIdentity;
  readonly log: Logger;
}

/** The snapshots of capsules on this host. What is damaged or of another version is reported, never removed unasked. */
export class SnapshotStore {
  readonly #options: SnapshotStoreOptions;
  readonly #latest = new Map<string, SleepingVm>();

  constructor(options: SnapshotStoreOptions) {
    this.#options = options;
  }

  /** Finds what is there and removes what was never finished. Before anything else uses the store. */
  async open(): Promise<void> {
    const { dir, log } = this.#options;
    await mkdir(dir.snapshots, { recursive: true, mode: 0o711 });
    for (const id of await readdir(dir.snapshots)) {
      if (!isId('cl', id) && !isId('snap', id)) {
        log.warn({ name: id }, 'something in the folder of snapshots is none; it is left alone');
        continue;
      }
      const complete: number[] = [];
      for (const name of await readdir(join(dir.snapshots, id))) {
        if (/^[1-9]\d*$/.test(name)) complete.push(Number(name));
        else await removeFolder(join(dir.snapshots, id, name));
      }
      const newest = Math.max(0, ...complete);
      if (newest === 0) await rmdir(join(dir.snapshots, id));
      else await this.#adopt(id, newest);
    }
  }

  async #adopt(id: string, generation: number): Promise<void> {
    const found = await this.#read(id, generation);
    this.#latest.set(id, found);
    if (found.problem) {
      this.#options.log.error({ id, generation, err: found.problem }, 'a snapshot cannot be restored as it is');
    } else {
      await this.removeOlder(id);
    }
  }

  /** The last complete snapshot of a capsule, or that of a user; undefined where there is none on this host. */
  latest(id: string): SleepingVm | undefined {
    return this.#latest.get(id);
  }

  /** Ids of all capsules that have a generation here. */
  capsuleIds(): string[] {
    return [...this.#latest.keys()].filter((id) => isId('cl', id));
  }

  /** All of users' snapshots. */
  kept(): SleepingVm[] {
    return [...this.#latest.values()].filter(({ id }) => isId('snap', id));
  }

  /** Where the generation is, or will be when it is complete. */
  folder(id: string, generation: number): string {
    return join(this.#options.dir.snapshots, id, String(generation));
  }

  /** An empty folder beside the generations, removed by the next `open` if nobody else does. The caller removes or seals it. */
  async makePartial(id: string, name: string): Promise<string> {
    const parent = join(this.#options.dir.snapshots, id);
    const dir = join(parent, `${name}.partial`);
    await mkdir(parent, { recursive: true, mode: 0o711 });
    await syncDirectory(this.#options.dir.snapshots);
    await removeFolder(dir);
    await mkdir(dir, { mode: 0o711 });
    return dir;
  }

  /** Removes such a folder, and the parent where nothing else is in it. */
  async removePartial(id: string, dir: string): Promise<void> {
    await removeFolder(dir);
    if (!this.#latest.has(id)) await this.#removeEmpty(id);
  }

  /** Takes note of a generation that was sealed. */
  async add(id: string, generation: number): Promise<SleepingVm> {
    const found = await this.#read(id, generation);
    this.#latest.set(id, found);
    return found;
  }

  /** Removes the generations before the last one. */
  async removeOlder(id: string): Promise<void> {
    const latest = this.#latest.get(id);
    if (!latest) return;
    for (const name of await readdir(join(this.#options.dir.snapshots, id))) {
      if (/^\d+$/.test(name) && Number(name) < latest.generation) await removeFolder(this.folder(id, Number(name)));
    }
  }

  /** Removes all that there is of a capsule or user's snapshot. Idempotent. */
  async remove(id: string): Promise<void> {
    this.#latest.delete(id);
    await removeFolder(join(this.#options.dir.snapshots, id));
  }

  /**
   * The manifest of a snapshot that can be started from here.
   *
   * @param memory Whether its memory is needed too.
   * @throws WrennError snapshot_damaged or snapshot_incompatible
   */
  async require(sleeping: SleepingVm, memory: boolean): Promise<SnapshotManifest> {
    const { id, dir, generation } = sleeping;
    const { manifest, problem } = await this.#read(id, generation);
    if (!manifest) throw problem;
    if (memory && problem) throw problem;
    if (!memory) await checkFiles(dir, diskOnly(manifest)).catch((cause) => Promise.reject(damagedError(id, cause)));
    return manifest;
  }

  /** Whether a snapshot from which a VM did not start is damaged; its content is read. */
  async recheck(sleeping: SleepingVm, signal: AbortSignal): Promise<WrennError | undefined> {
    const { id, dir, manifest } = sleeping;
    if (!manifest) return sleeping.problem;
    try {
      await checkContent(dir, manifest, signal);
      return undefined;
    } catch (cause) {
      signal.throwIfAborted();
      const problem = damagedError(id, cause);
      this.#latest.set(id, { ...sleeping, problem });
      return problem;
    }
  }

  async #read(id: string, generation: number): Promise<SleepingVm> {
    const dir = this.folder(id, generation);
    const known = { id, generation, dir };
    let manifest: SnapshotManifest;
    try {
      manifest = await readManifest(dir);
    } catch (cause) {
      return { ...known, manifest: undefined, ownBytes: 0, problem: await unreadable(id, dir, cause) };
    }
    const bytes = await ownBytes(dir, ownFiles(manifest));
    return { ...known, manifest, ownBytes: bytes, problem: await this.#findProblem(id, dir, manifest) };
  }

  async #findProblem(id: string, dir: string, manifest: SnapshotManifest): Promise<WrennError | undefined> {
    if (manifest.id !== id) return damagedError(id, new Error(`it is the snapshot of ${manifest.id}`));
    try {
      await checkFiles(dir, manifest);
    } catch (cause) {
      return damagedError(id, cause);
    }
    const mismatch = findMismatch(this.#options.identity, manifest);
    return mismatch ? new WrennError('snapshot_incompatible', { id, problem: mismatch }) : undefined;
  }

  async #removeEmpty(id: string): Promise<void> {
    await rmdir(join(this.#options.dir.snapshots, id)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT' && error.code !== 'ENOTEMPTY') throw error;
    });
  }
}

/** What of it is not shared with the snapshot that the capsule was made of. */
function ownFiles({ files, layers, sharedLayers }: SnapshotManifest): string[] {
  const shared = new Set(layers.slice(0, sharedLayers).map((name) => join('layers', name)));
  return Object.keys(files).filter((name) => !shared.has(name));
}

function diskOnly(manifest: SnapshotManifest): SnapshotManifest {
  const files = Object.entries(manifest.files).filter(([name]) => !name.startsWith('memory/'));
  return { ...manifest, files: Object.fromEntries(files) };
}

async function unreadable(id: string, dir: string, cause: unknown): Promise<WrennError> {
  const version = await manifestVersion(dir);
  if (version === undefined) return damagedError(id, new Error('its manifest cannot be read'));
  const problem = `it was written in form ${version} by another version of Wrenn`;
  return new WrennError('snapshot_incompatible', { id, problem }, { cause });
}
