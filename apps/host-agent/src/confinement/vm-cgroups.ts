import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { VmShape } from '@wrenn/hypervisor/hypervisor';
import { killProcess, processKey } from '@wrenn/hypervisor/vm-process';
import type { Logger } from 'pino';
import { type CgroupController, type CgroupLayout, findCgroups } from './cgroup-layout.ts';

const MIB = 1024 * 1024;
const PERIOD_US = 100_000;
/** Threads of a hypervisor besides its vCPUs: its I/O workers (up to 64 a disk) and helpers. */
const HELPER_THREADS = 192;
/** The hypervisor's own memory: program, buffers and, under emulation, translated guest code. */
const OVERHEAD_MB = { kvm: 192, tcg: 512 } as const;

const LIMIT_FILES: Record<CgroupLayout['version'], Record<CgroupController, string>> = {
  1: { memory: 'memory.limit_in_bytes', cpu: 'cpu.cfs_quota_us', pids: 'pids.max' },
  2: { memory: 'memory.max', cpu: 'cpu.max', pids: 'pids.max' },
};

export interface VmCgroupsOptions {
  /** Real path of WRENN_DIR; its hash keeps the VMs of several agents on one machine apart. */
  readonly wrennDir: string;
  readonly accelerator: 'kvm' | 'tcg';
  readonly log: Logger;
}

/** Makes and removes the cgroups that bound what each VM can take from its host. */
export class VmCgroups {
  readonly #layout: CgroupLayout;
  readonly #accelerator: 'kvm' | 'tcg';
  /** `{root}/wrenn/{tag}` holds the groups of this WRENN_DIR. */
  readonly #tag: string;

  private constructor(layout: CgroupLayout, accelerator: 'kvm' | 'tcg', tag: string) {
    this.#layout = layout;
    this.#accelerator = accelerator;
    this.#tag = tag;
  }

  static async open({ wrennDir, accelerator, log }: VmCgroupsOptions): Promise<VmCgroups> {
    const tag = createHash('sha256').update(wrennDir).digest('hex').slice(0, 12);
    const layout = await findCgroups();
    try {
      for (const tree of layout.trees) await makeParent(layout.version, tree.root, tag, tree.controllers);
      const missing = Object.keys(LIMIT_FILES[1]).filter(
        (name) => !layout.trees.some((tree) => tree.controllers.some((controller) => controller === name)),
      );
      if (missing.length > 0)
        log.warn({ missing }, 'this machine lacks cgroup controllers: VMs run without these limits');
      return new VmCgroups(layout, accelerator, tag);
    } catch (error) {
      log.warn({ err: error }, 'cgroups cannot be made on this machine: VMs run without limits');
      return new VmCgroups({ ...layout, trees: [] }, accelerator, tag);
    }
  }

  /** Makes the VM's groups and returns the `cgroup.procs` files that its process enters. */
  async create(id: string, shape: VmShape): Promise<string[]> {
    const limits = this.#limits(shape);
    return Promise.all(
      this.#layout.trees.map(async ({ root, controllers }) => {
        const group = join(root, 'wrenn', this.#tag, id);
        await mkdir(group, { recursive: true });
        for (const name of controllers) {
          await writeFile(join(group, LIMIT_FILES[this.#layout.version][name]), limits[name]);
        }
        return join(group, 'cgroup.procs');
      }),
    );
  }

  /** Ends whatever still runs in the VM's groups and removes them. Idempotent. */
  async remove(id: string): Promise<void> {
    await Promise.all(this.#parents().map((parent) => removeGroup(join(parent, id))));
  }

  /** Ids of all VMs of this WRENN_DIR that have a group. */
  async list(): Promise<string[]> {
    const lists = await Promise.all(
      this.#parents().map(async (parent) => {
        const entries = await readdir(parent, { withFileTypes: true }).catch(() => []);
        return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
      }),
    );
    return [...new Set(lists.flat())];
  }

  /** Removes this WRENN_DIR's own folders where no VM is in them. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const parent of this.#parents()) {
      await rmdir(parent).catch((error: NodeJS.ErrnoException) => {
        if (!['EBUSY', 'ENOTEMPTY', 'ENOENT'].includes(error.code ?? '')) throw error;
      });
    }
  }

  #parents(): string[] {
    return this.#layout.trees.map((tree) => join(tree.root, 'wrenn', this.#tag));
  }

  #limits(shape: VmShape): Record<CgroupController, string> {
    // One CPU more than the guest sees, so that the hypervisor's own threads do not stall the guest's.
    const quotaUs = (shape.vcpus + 1) * PERIOD_US;
    return {
      memory: String((shape.memoryMb + OVERHEAD_MB[this.#accelerator]) * MIB),
      cpu: this.#layout.version === 2 ? `${quotaUs} ${PERIOD_US}` : String(quotaUs),
      pids: String(shape.vcpus + HELPER_THREADS),
    };
  }
}

async function makeParent(
  version: 1 | 2,
  root: string,
  tag: string,
  controllers: readonly CgroupController[],
): Promise<void> {
  const shared = join(root, 'wrenn');
  const parent = join(shared, tag);
  await mkdir(parent, { recursive: true });
  if (version === 1) return;
  const enable = controllers.map((name) => `+${name}`).join(' ');
  for (const group of [root, shared, parent]) await writeFile(join(group, 'cgroup.subtree_control'), enable);
}

async function removeGroup(group: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 50)) {
    try {
      return await rmdir(group);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return;
      // Processes are in it, or the kernel still counts one that has just ended.
      if (code !== 'EBUSY' || Date.now() > deadline) throw error;
    }
    const text = await readFile(join(group, 'cgroup.procs'), 'utf8').catch(() => '');
    for (const pid of text.split('\n').filter(Boolean)) {
      const found = processKey(Number(pid));
      if (found) await killProcess(found);
    }
    await sleep(waitMs);
  }
}
