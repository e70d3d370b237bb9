import { type ExecFileOptions, execFile } from 'node:child_process';
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { newestKernel } from '@wrenn/guest-image/catalog';
import type { DiskLayer, VmShape, VmSpec } from '@wrenn/hypervisor/hypervisor';
import { until } from '@wrenn/testing/until';

/** First program of the test guest: busybox only, with a shell behind a port for whoever reaches the network. */
const GUEST_INIT = `#!/busybox sh
B=/busybox
$B mkdir -p /bin
$B --install -s /bin
export PATH=/bin
mkdir -p /tmpfs
mount -t tmpfs -o size=100% tmpfs /tmpfs
ip link set lo up
ip addr add 169.254.0.21/30 dev eth0
ip link set eth0 up
echo "test guest is up"
exec nc -ll -p 4000 -e /bin/sh
`;

const ROOT_DISK_MB = 64;

const run = promisify(execFile);

/** A network namespace with a TAP, a disk and a run folder: all that a VM needs besides a hypervisor. */
export interface TestSlot {
  readonly uid: number;
  readonly namespace: string;
  readonly runDir: string;
}

/** A small file system of its own, for what happens when it is full. */
export interface SmallDisk {
  readonly dir: string;
  /** Takes all the space that is left but `sparedBytes`. */
  fill(sparedBytes?: number): Promise<void>;
  /** Gives back what `fill` took. */
  free(): Promise<void>;
}

/** A folder with the files of one test file's VMs. */
export class TestGuests {
  readonly dir: string;
  readonly #kernelPath: string;
  readonly #initramfsPath: string;
  readonly #slots: TestSlot[] = [];
  readonly #mounts: string[] = [];
  #disks = 0;

  private constructor(dir: string, kernelPath: string, initramfsPath: string) {
    this.dir = dir;
    this.#kernelPath = kernelPath;
    this.#initramfsPath = initramfsPath;
  }

  /** Uses the kernel of WRENN_DIR, which `make image` builds. */
  static async create(): Promise<TestGuests> {
    const kernels = wrennDir(process.env.WRENN_DIR || '/var/lib/wrenn');
    const kernel = await newestKernel(kernels);
    if (!kernel) throw new Error(`There is no guest kernel in ${kernels.kernels}; run \`make image\``);
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-hv-'));
    await chmod(dir, 0o711);
    const guests = new TestGuests(dir, kernel.vmlinuxPath, kernel.initramfsPath);
    await guests.#makeRootDisk();
    return guests;
  }

  /** The immutable base of every disk. */
  get rootDiskPath(): string {
    return join(this.dir, 'root.ext4');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const dir of this.#mounts) await run('umount', [dir]);
    for (const slot of this.#slots) await run('ip', ['netns', 'del', slot.namespace]);
    await rm(this.dir, { recursive: true, force: true });
  }

  async makeSlot(): Promise<TestSlot> {
    const number = this.#slots.length;
    const namespace = `wrenn-hv-${process.pid}-${number}`;
    const slot = { uid: 280_000 + number, namespace, runDir: join(this.dir, `run-${number}`) };
    await mkdir(slot.runDir);
    await run('ip', ['netns', 'add', namespace]);
    this.#slots.push(slot);
    await run('ip', ['-n', namespace, 'tuntap', 'add', 'tap0', 'mode', 'tap', 'user', String(slot.uid)]);
    await run('ip', ['-n', namespace, 'addr', 'add', '169.254.0.22/30', 'dev', 'tap0']);
    await run('ip', ['-n', namespace, 'link', 'set', 'tap0', 'up']);
    return slot;
  }

  /** A new overlay over `base`, by default over the root disk. @returns its path. */
  async makeOverlay(base?: DiskLayer): Promise<string> {
    const { path, format } = base ?? { path: this.rootDiskPath, format: 'raw' };
    const overlay = join(this.dir, `disk-${this.#disks++}.qcow2`);
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', path, '-F', format, overlay]);
    return overlay;
  }

  /**
   * A new, empty overlay that fits every disk of the tests.
   *
   * @param backingName What its header says to be below it, which need not exist; without it the header names nothing.
   */
  async makeBlankOverlay(backingName?: string, dir = this.dir): Promise<string> {
    const overlay = join(dir, `disk-${this.#disks++}.qcow2`);
    const backing = backingName === undefined ? [] : ['-u', '-b', backingName, '-F', 'qcow2'];
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, overlay, `${ROOT_DISK_MB}M`]);
    // Root's alone, as an agent's files are: the VM's user could not open it.
    await chmod(overlay, 0o600);
    return overlay;
  }

  async makeSmallDisk(sizeMb: number): Promise<SmallDisk> {
    const dir = join(this.dir, `small-${this.#mounts.length}`);
    const image = `${dir}.img`;
    const ballast = join(dir, 'ballast');
    await mkdir(dir);
    await run('truncate', ['-s', `${sizeMb}M`, image]);
    await run('mkfs.ext4', ['-q', '-m0', '-O', '^has_journal', image]);
    await run('mount', ['-o', 'loop', image, dir]);
    this.#mounts.push(dir);
    return {
      dir,
      fill: async (sparedBytes = 0) => {
        // Space of deleted and punched blocks comes back late; what is given in pieces takes the last of it.
        for (let i = 0; i < 20; i++) {
          const { bavail, bsize } = await statfs(dir);
          const bytes = bavail * bsize - sparedBytes;
          if (bytes < bsize) return;
          await run('fallocate', ['-l', String(bytes), `${ballast}-${i}`]).catch(() => {});
        }
      },
      free: async () => {
        await run('sh', ['-c', `rm -f ${ballast}-*`]);
      },
    };
  }

  makeSnapshotDir(): Promise<string> {
    return mkdtemp(join(this.dir, 'snapshot-'));
  }

  spec(id: string, slot: TestSlot, diskPath: string, shape: VmShape = { vcpus: 1, memoryMb: 256 }): VmSpec {
    return {
      id,
      shape,
      kernelPath: this.#kernelPath,
      initramfsPath: this.#initramfsPath,
      disk: { path: diskPath, format: 'qcow2' },
      network: {
        namespacePath: `/run/netns/${slot.namespace}`,
        tap: 'tap0',
        mac: '02:FC:00:00:00:05',
      },
      uid: slot.uid,
      gid: slot.uid,
      cgroupProcs: [],
      runDir: slot.runDir,
    };
  }

  async #makeRootDisk(): Promise<void> {
    const root = join(this.dir, 'root');
    const init = join(root, 'opt/wrenn/bin/wrenn-init');
    await mkdir(join(root, 'opt/wrenn/bin'), { recursive: true });
    for (const folder of ['proc', 'sys', 'dev']) await mkdir(join(root, folder));
    await writeFile(init, GUEST_INIT);
    await chmod(init, 0o755);
    await copyFile('/bin/busybox', join(root, 'busybox'));
    await run('mke2fs', ['-q', '-t', 'ext4', '-d', root, this.rootDiskPath, `${ROOT_DISK_MB}M`]);
  }
}

/** Runs a shell script in the guest and returns what it printed, without the last line end. */
export async function inGuest(slot: TestSlot, script: string, options: ExecFileOptions = {}): Promise<string> {
  const args = [`--net=/run/netns/${slot.namespace}`, 'busybox', 'nc', '169.254.0.21', '4000'];
  const running = run('nsenter', args, { timeout: 60_000, ...options });
  // The guest's shell closes the connection when it is done, so that the answer's end is known.
  running.child.stdin?.end(`${script}\nexit\n`);
  return String((await running).stdout).trimEnd();
}

/** A script that starts after the one that starts it has answered; for what ends the guest. */
export function inBackground(script: string): string {
  return `(sleep 0.3; ${script}) </dev/null >/dev/null 2>&1 &`;
}

/** Waits until the guest's shell answers. */
export async function untilGuestIsUp(slot: TestSlot): Promise<void> {
  await until('the guest answers', 60_000, async () => {
    try {
      return (await inGuest(slot, 'echo up', { timeout: 2000 })) === 'up';
    } catch {
      return false;
    }
  });
}

export async function consoleOf(slot: TestSlot): Promise<string> {
  return readFile(join(slot.runDir, 'console.log'), 'utf8');
}
