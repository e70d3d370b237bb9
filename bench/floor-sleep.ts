import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdir, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { Duplex } from 'node:stream';
import { promisify } from 'node:util';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { type GuestKernel, newestKernel, readImage } from '@wrenn/guest-image/catalog';
import { VmCgroups } from '@wrenn/host-agent/confinement/vm-cgroups';
import { askGuest } from '@wrenn/host-agent/guest/guest-connection';
import { initGuest } from '@wrenn/host-agent/guest/init-guest';
import { claimOwner } from '@wrenn/host-agent/network/claims';
import { GUEST, type Slot } from '@wrenn/host-agent/network/slot';
import { SlotPool } from '@wrenn/host-agent/network/slot-pool';
import { chooseHypervisor } from '@wrenn/hypervisor/choose-hypervisor';
import { HOST_ROOT, readHostFacts } from '@wrenn/hypervisor/host-facts';
import { MACHINES, type QemuProgram, qemuArguments, type VmStart } from '@wrenn/hypervisor/qemu/machine';
import { QmpClient } from '@wrenn/hypervisor/qemu/qmp-client';
import { pino } from 'pino';
import { enterCgroup } from './floor-vm.ts';
import { summarise, timed } from './measurement.ts';

const START_TIMEOUT_MS = 60_000;
const SAVE_TIMEOUT_MS = 60_000;
/** Above this the memory of an x86 microvm lies in two physical ranges. */
const MAX_MEMORY_MB = 3008;
const DISK_MB = 5120;
const MIB = 1024 * 1024;

const run = promisify(execFile);

/** What floor VMs that sleep are made of. */
export interface SleepFloor {
  readonly program: QemuProgram;
  readonly kernel: GuestKernel;
  /** The same image as the capsules that are compared with these VMs. */
  readonly rootfsPath: string;
  /** Folder on the file system on which capsules lie. */
  readonly dir: string;
  readonly slots: Pick<SlotPool, 'acquire' | 'release'>;
  readonly cgroups: VmCgroups;
}

/** Files of one sleep: the memory in full as QEMU's own command writes it, and the devices. */
interface Saved {
  readonly dir: string;
  readonly disk: string;
}

interface Running {
  readonly child: ChildProcess;
  /** Its name among the groups. */
  readonly cgroup: string;
  readonly client: QmpClient;
  readonly slot: Slot;
  readonly jailDir: string;
  readonly disk: string;
}

/**
 * A VM put to sleep, woken and forked as the barest script would do it with QEMU alone: the whole memory by `pmemsave`,
 * the devices, fsync of both and of the disk; no agent, no journal, no sums, no database. Every call resolves with how
 * many milliseconds it took. The first sleep after a boot is slower than the others, as nothing is mapped from a file yet.
 */
export class SleepyFloorVm implements AsyncDisposable {
  readonly #floor: SleepFloor;
  readonly #memoryMb: number;
  readonly #dir: string;
  readonly #slot: Slot;
  #running: Running | undefined;
  #saved: Saved | undefined;
  #files = 0;

  private constructor(floor: SleepFloor, memoryMb: number, dir: string, slot: Slot) {
    this.#floor = floor;
    this.#memoryMb = memoryMb;
    this.#dir = dir;
    this.#slot = slot;
  }

  /** Boots a guest and returns once its guest agent has been settled. */
  static async boot(floor: SleepFloor, memoryMb: number): Promise<SleepyFloorVm> {
    if (memoryMb > MAX_MEMORY_MB) throw new RangeError(`the floor saves at most ${MAX_MEMORY_MB} MiB`);
    const dir = await mkdtemp(join(floor.dir, 'floor-'));
    const slot = await floor.slots.acquire(AbortSignal.timeout(START_TIMEOUT_MS));
    const vm = new SleepyFloorVm(floor, memoryMb, dir, slot);
    try {
      const disk = join(dir, 'disk.qcow2');
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', floor.rootfsPath, '-F', 'raw', disk, `${DISK_MB}M`]);
      vm.#running = await vm.#start(slot, disk, undefined);
      return vm;
    } catch (error) {
      await vm[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** To a VM that has ended with all of it on stable storage. */
  async pause(): Promise<number> {
    const running = this.#mustRun();
    const earlier = this.#saved;
    const ms = await timed(async () => {
      this.#saved = await this.#save(running);
      await running.client.execute('quit', undefined, { timeoutMs: SAVE_TIMEOUT_MS });
      await ended(running.child);
    });
    running.client.close();
    this.#running = undefined;
    await this.#floor.cgroups.remove(running.cgroup);
    if (earlier) await rm(earlier.dir, { recursive: true, force: true });
    return ms;
  }

  /** To an answered /health and /init. */
  async resume(): Promise<number> {
    const saved = this.#saved;
    if (!saved || this.#running) throw new Error('the floor VM does not sleep');
    return timed(async () => {
      this.#running = await this.#start(this.#slot, saved.disk, saved);
    });
  }

  /** To `count` children that have answered /health and /init, beside the VM itself, which has answered again. Ends the children. */
  async fork(count: number): Promise<number> {
    const source = this.#mustRun();
    const slots: Slot[] = [];
    const children: Running[] = [];
    let saved: Saved | undefined;
    try {
      for (let i = 0; i < count; i++) {
        slots.push(await this.#floor.slots.acquire(AbortSignal.timeout(START_TIMEOUT_MS)));
      }
      return await timed(async () => {
        const made = await this.#save(source);
        saved = made;
        const disks = await Promise.all(
          slots.map(async (_, i) => {
            const disk = join(made.dir, `disk-${i}.qcow2`);
            await run('cp', ['--reflink=auto', '--sparse=auto', '--', source.disk, disk]);
            await fsync(disk);
            return disk;
          }),
        );
        await source.client.execute('cont', undefined, { timeoutMs: SAVE_TIMEOUT_MS });
        await Promise.all([
          answers(this.#slot),
          ...slots.map(async (slot, i) => {
            const disk = disks[i] ?? '';
            children.push(await this.#start(slot, disk, { ...made, disk }));
          }),
        ]);
      });
    } finally {
      for (const child of children) await end(this.#floor.cgroups, child);
      for (const slot of slots) await this.#floor.slots.release(slot);
      if (saved) await rm(saved.dir, { recursive: true, force: true });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#running) await end(this.#floor.cgroups, this.#running);
    await this.#floor.slots.release(this.#slot);
    await rm(this.#dir, { recursive: true, force: true });
  }

  #mustRun(): Running {
    if (!this.#running) throw new Error('the floor VM sleeps');
    return this.#running;
  }

  async #save({ client, jailDir, disk }: Running): Promise<Saved> {
    const options = { timeoutMs: SAVE_TIMEOUT_MS };
    await client.execute('stop', undefined, options);
    const command = `pmemsave 0 ${this.#memoryMb * MIB} "/memory"`;
    const said = await client.execute('human-monitor-command', { 'command-line': command }, options);
    if (said.trim() !== '') throw new Error(`pmemsave: ${said.trim()}`);
    await client.execute('xen-save-devices-state', { filename: '/devices', live: true }, options);
    await Promise.all([fsync(join(jailDir, 'memory')), fsync(join(jailDir, 'devices')), fsync(disk)]);
    // A name of its own, because the VM's next sleep writes to the same one.
    const dir = join(this.#dir, `saved-${this.#files++}`);
    await mkdir(dir);
    for (const name of ['memory', 'devices']) await run('mv', [join(jailDir, name), join(dir, name)]);
    return { dir, disk };
  }

  async #start(slot: Slot, disk: string, saved: Saved | undefined): Promise<Running> {
    const { program, kernel } = this.#floor;
    const jailDir = join(this.#dir, `jail-${this.#files++}`);
    await mkdir(jailDir);
    await chown(jailDir, slot.uid, slot.gid);
    const spec = {
      id: 'floor',
      shape: { vcpus: 1, memoryMb: this.#memoryMb },
      kernelPath: kernel.vmlinuxPath,
      initramfsPath: kernel.initramfsPath,
      disk: { path: disk, format: 'qcow2' as const },
      network: { namespacePath: slot.namespacePath, tap: GUEST.tap, mac: GUEST.mac },
      uid: slot.uid,
      gid: slot.gid,
      cgroupProcs: [],
      runDir: this.#dir,
    };
    const launch = {
      controlFd: 3,
      controlSocket: `${jailDir}.sock`,
      consolePath: `${jailDir}.log`,
      jailDir,
    };
    const start: VmStart = saved
      ? { kind: 'restore', memoryPath: join(saved.dir, 'memory'), devicesFd: 4 }
      : { kind: 'boot' };
    await using devices = saved ? await open(join(saved.dir, 'devices'), 'r') : undefined;
    const child = spawn(
      'nsenter',
      [`--net=${slot.namespacePath}`, '--', program.path, ...qemuArguments(program, spec, start, launch)],
      { stdio: ['ignore', 'ignore', 'inherit', 'pipe', ...(devices ? [devices.fd] : [])] },
    );
    const cgroup = `${basename(this.#dir)}-${basename(jailDir)}`;
    try {
      await enterCgroup(this.#floor.cgroups, cgroup, spec.shape, child);
      const control = child.stdio[launch.controlFd];
      if (!(control instanceof Duplex)) throw new Error('Node gave no connection to QEMU');
      const client = await QmpClient.open(control, AbortSignal.timeout(START_TIMEOUT_MS));
      await answers(slot);
      const settings = { accessToken: '', envs: {}, user: 'root', workdir: '', hostname: 'floor' };
      await initGuest('floor', slot.hostIp, settings, AbortSignal.timeout(START_TIMEOUT_MS));
      return { child, cgroup, client, slot, jailDir, disk };
    } catch (error) {
      child.kill('SIGKILL');
      await ended(child);
      await this.#floor.cgroups.remove(cgroup);
      throw error;
    }
  }
}

interface FloorSamples {
  readonly memoryMb: number;
  /** How many samples. */
  readonly n: number;
}

/** Milliseconds of `n` sleeps and of the wakings after them, of one VM. */
async function floorSleeps(
  floor: SleepFloor,
  { memoryMb, n }: FloorSamples,
): Promise<{ readonly pause: number[]; readonly resume: number[] }> {
  await using vm = await SleepyFloorVm.boot(floor, memoryMb);
  await vm.pause();
  await vm.resume();
  const [pause, resume]: [number[], number[]] = [[], []];
  for (let i = 0; i < n; i++) {
    pause.push(await vm.pause());
    resume.push(await vm.resume());
  }
  return { pause, resume };
}

/** Milliseconds of `n` forks into `count` children each. */
async function floorFork(
  floor: SleepFloor,
  { memoryMb, n, count }: FloorSamples & { readonly count: number },
): Promise<number[]> {
  await using vm = await SleepyFloorVm.boot(floor, memoryMb);
  await vm.pause();
  await vm.resume();
  const samples: number[] = [];
  for (let i = 0; i < n; i++) samples.push(await vm.fork(count));
  return samples;
}

async function answers(slot: Slot): Promise<void> {
  const request = { hostIp: slot.hostIp, method: 'GET', path: '/health' } as const;
  const { status } = await askGuest(request, AbortSignal.timeout(START_TIMEOUT_MS));
  if (status !== 204) throw new Error(`envd answers /health with ${status}`);
}

async function fsync(path: string): Promise<void> {
  await using file = await open(path, 'r+');
  await file.sync();
}

async function end(cgroups: VmCgroups, { child, cgroup, client }: Running): Promise<void> {
  child.kill('SIGKILL');
  await ended(child);
  client.close();
  await cgroups.remove(cgroup);
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

/** The hypervisor that the platform would use too. */
export async function floorProgram(): Promise<QemuProgram> {
  const { identity } = (await chooseHypervisor()).hypervisor;
  const { kind, arch } = identity;
  if (kind !== 'qemu' || (arch !== 'x86_64' && arch !== 'aarch64')) throw new Error(`no floor for ${kind} on ${arch}`);
  const { tscKhz } = await readHostFacts(HOST_ROOT);
  return { path: MACHINES[arch].program, identity: { ...identity, kind, arch }, tscKhz };
}

/** The groups of a WRENN_DIR, among which the floor's own are made. */
export function floorCgroups({ identity }: QemuProgram, wrennDir: string): Promise<VmCgroups> {
  return VmCgroups.open({ wrennDir, accelerator: identity.accelerator, log: pino({ level: 'warn' }) });
}

/** Measures the floors alone, with kernel and image of WRENN_DIR: `node bench/floor-sleep.ts [samples]`. */
async function main(): Promise<void> {
  const n = Number(process.argv[2] ?? 5);
  const installed = wrennDir(process.env.WRENN_DIR || '/var/lib/wrenn');
  const [kernel, image] = [await newestKernel(installed), await readImage(installed, 'minimal')];
  if (!kernel) throw new Error('there is no kernel');
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-floor-'));
  try {
    await using slots = new SlotPool({ owner: claimOwner(dir), size: () => 0, log: pino({ level: 'warn' }) });
    const program = await floorProgram();
    await using cgroups = await floorCgroups(program, dir);
    const floor = { program, kernel, rootfsPath: image.rootfsPath, dir, slots, cgroups };
    const rows = [];
    for (const memoryMb of [256, 1024]) {
      const { pause, resume } = await floorSleeps(floor, { memoryMb, n });
      rows.push(summarise(`floor pause, ${memoryMb} MiB`, 'ms', pause));
      rows.push(summarise(`floor resume, ${memoryMb} MiB`, 'ms', resume));
    }
    for (const count of [1, 8]) {
      const samples = await floorFork(floor, { memoryMb: 256, n, count });
      rows.push(summarise(`floor fork of ${count}, 256 MiB`, 'ms', samples));
    }
    console.table(rows, ['name', 'unit', 'n', 'p50', 'p95']);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

if (import.meta.main) await main();
