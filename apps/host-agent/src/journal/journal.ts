import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { replaceFile, syncDirectory } from '@wrenn/config/atomic-file';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { type VmRecord, vmRecordSchema } from './vm-record.ts';

const RECORD_NAME = 'record.json';

export type JournalEntry =
  | { readonly kind: 'record'; readonly record: VmRecord }
  /** A folder in which no record was ever written: cut off before anything was made. */
  | { readonly kind: 'empty'; readonly vmId: string };

/**
 * What the agent knows of its VMs, on disk: one record in each VM's folder, replaced whole and on stable storage
 * before the step that it announces. Whatever is not in a record does not belong to a VM and may be removed.
 */
export class Journal {
  readonly #dir: WrennDir;

  constructor(dir: WrennDir) {
    this.#dir = dir;
  }

  /** Makes the VM's folder with its first record in it. */
  async begin(record: VmRecord): Promise<void> {
    // Others may pass through to the part that belongs to the VM's own user, and see nothing on the way.
    await mkdir(this.#dir.capsule(record.vmId), { mode: 0o711 });
    await this.write(record);
    await syncDirectory(this.#dir.capsules);
  }

  async write(record: VmRecord): Promise<void> {
    const path = join(this.#dir.capsule(record.vmId), RECORD_NAME);
    await replaceFile(path, JSON.stringify(record), { mode: 0o600 });
  }

  /** Removes the VM's folder with all that is in it. Idempotent. */
  async end(vmId: string): Promise<void> {
    await rm(this.#dir.capsule(vmId), { recursive: true, force: true });
  }

  /** @throws Error when a record cannot be understood: it may be of a newer agent, whose VMs must not be harmed. */
  async load(): Promise<JournalEntry[]> {
    const entries = await readdir(this.#dir.capsules, { withFileTypes: true });
    const folders = entries.filter((entry) => entry.isDirectory());
    return Promise.all(folders.map((folder) => this.#read(folder.name)));
  }

  async #read(vmId: string): Promise<JournalEntry> {
    const path = join(this.#dir.capsule(vmId), RECORD_NAME);
    let text: string;
    try {
      text = await readFile(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { kind: 'empty', vmId };
      throw error;
    }
    try {
      const record = vmRecordSchema.parse(JSON.parse(text));
      if (record.vmId !== vmId) throw new Error(`it names ${record.vmId}`);
      return { kind: 'record', record };
    } catch (error) {
      const remedy = 'Start the agent version that wrote it, or move the folder away.';
      throw new Error(`${path} is not a record that this version understands. ${remedy}`, { cause: error });
    }
  }
}
