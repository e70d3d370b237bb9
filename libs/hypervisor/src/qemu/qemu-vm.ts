import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:fs';
import { open, rm, statfs, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { BoundedLog, logTail } from '../bounded-log.ts';
import { saveGuestMemory } from '../guest-memory.ts';
import type {
  DiskCompaction,
  DiskCompactionResult,
  DiskStop,
  MemorySnapshot,
  RunningVm,
  VmExit,
  VmProcessRecord,
  VmShape,
} from '../hypervisor.ts';
import { isRunning, killProcess, waitUntilGone } from '../vm-process.ts';
import { cancelDiskCompaction, compactQemuDisk } from './disk-compaction.ts';
import { DiskStopWatch } from './disk-stop.ts';
import { snapshotFiles, vmFiles } from './launch.ts';
import { type Architecture, MACHINES } from './machine.ts';
import { QmpClient } from './qmp-client.ts';

/** Stopping waits for disk requests in flight. */
const STOP_TIMEOUT_MS = 30_000;
const COMMAND_TIMEOUT_MS = 10_000;
const QUIT_TIMEOUT_MS = 1000;
/** A closed control connection nearly always means that the process is ending. */
const END_AFTER_CLOSE_MS = 2000;

const CONSOLE_LIMIT_BYTES = 1024 * 1024;
const LOG_LIMIT_BYTES = 256 * 1024;
/** Device states are some hundred kB; more comes from a QEMU that must not be trusted. */
const MAX_DEVICES_BYTES = 64 * 1024 * 1024;
/** With less than this left neither the devices nor what is left of the disk's own tables find room. */
const FULL_BYTES = 1024 * 1024;
const DEVICES_IN_JAIL = 'devices';

/** A QEMU process under control. */
export interface QemuProcess {
  readonly id: string;
  readonly record: VmProcessRecord;
  readonly shape: VmShape;
  readonly client: QmpClient;
  /** Whether its vCPUs run, as far as that is ours to say. */
  readonly standing: boolean;
  /** The process where this process started it, for its exit status. */
  readonly child?: ChildProcess;
}

/** A VM in a QEMU process. */
export class QemuVm implements RunningVm {
  readonly id: string;
  readonly process: VmProcessRecord;
  readonly exited: Promise<VmExit>;
  readonly #shape: VmShape;
  readonly #child: ChildProcess | undefined;
  readonly #logs: readonly BoundedLog[];
  readonly #diskStops: DiskStopWatch;
  #client: QmpClient;
  /** Whether it is for us to let the vCPUs run, and not yet time to. */
  #standing: boolean;
  /**
   * Whether QEMU writes to its disk: saving devices makes it give the disk up until the VM runs again, and a QEMU that
   * is told to do so twice ends itself. It is `unknown` of a VM that an earlier agent left standing.
   */
  #disk: 'in-use' | 'given-up' | 'unknown';
  #compaction: { readonly interrupt: AbortController; readonly ended: Promise<unknown> } | undefined;
  #killing = false;
  #released = false;

  private constructor(qemu: QemuProcess, logs: readonly BoundedLog[]) {
    this.id = qemu.id;
    this.process = qemu.record;
    this.#shape = qemu.shape;
    this.#child = qemu.child;
    this.#logs = logs;
    this.#client = qemu.client;
    this.#standing = qemu.standing;
    this.#disk = qemu.standing ? 'unknown' : 'in-use';
    this.#diskStops = new DiskStopWatch(() => this.#tryDiskAgain());
    this.#listen();
    this.exited = this.#follow();
  }

  /** The object owns the connection from now on; where this fails the caller still does. */
  static async create(qemu: QemuProcess): Promise<QemuVm> {
    const files = vmFiles(dirname(qemu.record.controlSocket));
    const consoleLog = await BoundedLog.watch(files.console, CONSOLE_LIMIT_BYTES);
    try {
      return new QemuVm(qemu, [consoleLog, await BoundedLog.watch(files.log, LOG_LIMIT_BYTES)]);
    } catch (error) {
      consoleLog.close();
      throw error;
    }
  }

  async pause(signal: AbortSignal): Promise<void> {
    this.#standing = true;
    this.#diskStops.end();
    this.#compaction?.interrupt.abort();
    await this.#compaction?.ended;
    // One that an earlier agent began.
    await cancelDiskCompaction(this.#client, signal);
    await this.#client.execute('stop', undefined, { signal, timeoutMs: STOP_TIMEOUT_MS });
  }

  async resume(signal: AbortSignal): Promise<void> {
    this.#standing = false;
    await this.#client.execute('cont', undefined, { signal, timeoutMs: COMMAND_TIMEOUT_MS });
    this.#disk = 'in-use';
  }

  async saveSnapshot(dir: string, signal: AbortSignal): Promise<MemorySnapshot> {
    const { status } = await this.#client.execute('query-status', undefined, { signal, timeoutMs: COMMAND_TIMEOUT_MS });
    // Requests that the host's disk could not take are part of the devices, and are tried again after the restore.
    if (!this.#standing || (status !== 'paused' && status !== 'io-error')) {
      throw new Error(`VM ${this.id} is ${status}; a snapshot needs it paused`);
    }
    if (this.#disk === 'unknown') {
      throw new Error(
        `VM ${this.id} stands still since an earlier agent or a failed snapshot; it must run before it is saved`,
      );
    }
    const files = snapshotFiles(dir);
    await this.#saveDevices(files.devices, signal);
    const sizeBytes = this.#shape.memoryMb * 1024 * 1024;
    const address = await this.#memoryAddress(signal);
    await saveGuestMemory({ pid: this.process.pid, address, sizeBytes }, files.memory, signal);
    // A process that ended meanwhile may have taken memory away under the reader.
    if (!isRunning(this.process)) throw new Error(`VM ${this.id} ended while its snapshot was taken`);
    return { dir, shape: this.#shape, identity: this.process.identity };
  }

  async compactDisk(options: DiskCompaction, signal: AbortSignal): Promise<DiskCompactionResult> {
    if (this.#standing) throw new Error(`VM ${this.id} is paused; its disk is compacted while it runs`);
    if (this.#compaction) throw new Error(`The disk of VM ${this.id} is being compacted already`);
    const interrupt = new AbortController();
    const result = compactQemuDisk(this.#client, options, AbortSignal.any([signal, interrupt.signal]));
    this.#compaction = { interrupt, ended: Promise.allSettled([result]) };
    try {
      return await result;
    } catch (error) {
      // An AggregateError says that the job may go on all the same.
      if (interrupt.signal.aborted && !(error instanceof AggregateError)) return 'interrupted';
      throw error;
    } finally {
      this.#compaction = undefined;
    }
  }

  onDiskStop(listener: (stop: DiskStop | undefined) => void): () => void {
    return this.#diskStops.subscribe(listener);
  }

  async kill(): Promise<void> {
    this.#killing = true;
    this.#diskStops.end();
    if (isRunning(this.process)) {
      // Quitting closes the disk in order. A QEMU that does not obey at once is killed; both end the same for the caller.
      const asked = await this.#client
        .execute('quit', undefined, { timeoutMs: QUIT_TIMEOUT_MS })
        .then(() => true)
        .catch(() => false);
      if (!asked || !(await waitUntilGone(this.process, QUIT_TIMEOUT_MS))) await killProcess(this.process);
    }
    if (this.#child) await untilReaped(this.#child);
    if (!this.#released) await this.exited;
  }

  release(): void {
    this.#released = true;
    this.#diskStops.end();
    for (const log of this.#logs) log.close();
    this.#client.close();
    this.#child?.unref();
  }

  async #tryDiskAgain(): Promise<void> {
    if (this.#standing) return;
    await this.#client.execute('cont', undefined, { timeoutMs: COMMAND_TIMEOUT_MS });
  }

  #listen(): void {
    this.#client.subscribe((event) => {
      if (event.event === 'BLOCK_IO_ERROR' && !this.#standing) this.#diskStops.failed(event.data);
    });
  }

  /** QEMU sees its jail only, so the devices go through it. */
  async #saveDevices(path: string, signal: AbortSignal): Promise<void> {
    const inJail = join(vmFiles(dirname(this.process.controlSocket)).jail, DEVICES_IN_JAIL);
    // Giving the disk up tells whether all of it has reached the file, which stopping does not.
    const giveUp = this.#disk === 'in-use';
    this.#disk = 'unknown';
    try {
      await this.#client.execute(
        'xen-save-devices-state',
        { filename: `/${DEVICES_IN_JAIL}`, live: giveUp },
        { signal, timeoutMs: COMMAND_TIMEOUT_MS },
      );
      this.#disk = 'given-up';
      // The folder is QEMU's: what lies there may be a link or a pipe by now.
      await using file = await open(inJail, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      const stat = await file.stat();
      if (!stat.isFile() || stat.size > MAX_DEVICES_BYTES) throw new Error('QEMU wrote no proper device state');
      await writeFile(path, await file.readFile(), { flag: 'wx' });
    } catch (error) {
      // QEMU says only that it could not write.
      if (await isFull(dirname(inJail))) throw new Error('No space left on device', { cause: error });
      throw error;
    } finally {
      await rm(inJail, { force: true });
    }
  }

  async #memoryAddress(signal: AbortSignal): Promise<number> {
    const base = MACHINES[this.process.identity.arch as Architecture].memoryBase;
    const answer = await this.#client.execute(
      'human-monitor-command',
      { 'command-line': `gpa2hva 0x${base.toString(16)}` },
      { signal, timeoutMs: COMMAND_TIMEOUT_MS },
    );
    const address = / is 0x([0-9a-f]+)/.exec(answer)?.[1];
    if (address === undefined) throw new Error(`QEMU does not say where its guest's memory is: ${answer.trim()}`);
    return Number.parseInt(address, 16);
  }

  /** Waits for the end of the process, whatever becomes of the connections to it. */
  async #follow(): Promise<VmExit> {
    for (;;) {
      await this.#client.closed;
      if (this.#released) return new Promise(() => {});
      if (await waitUntilGone(this.process, END_AFTER_CLOSE_MS)) break;
      await this.#reconnect();
    }
    this.#diskStops.end();
    for (const log of this.#logs) log.close();
    if (this.#child) await untilReaped(this.#child);
    return this.#describeExit();
  }

  /** The process lives on without us: QEMU dropped the connection, or we did because of what came over it. */
  async #reconnect(): Promise<void> {
    try {
      const client = await QmpClient.connect(this.process.controlSocket, AbortSignal.timeout(COMMAND_TIMEOUT_MS));
      if (this.#released) return client.close();
      this.#client = client;
      this.#listen();
    } catch {
      // `closed` of the old client is settled still, so the loop asks again whether the process runs.
    }
  }

  async #describeExit(): Promise<VmExit> {
    const { shutdown } = this.#client;
    if (this.#killing) return { reason: 'killed', detail: 'Ended by its host agent.' };
    const files = vmFiles(dirname(this.process.controlSocket));
    if (shutdown?.guest) {
      const console = await logTail(files.console, 64 * 1024).catch(() => '');
      const panic = /Kernel panic - not syncing: [^\r\n]*/.exec(console)?.[0];
      return {
        reason: 'guest',
        detail: panic ?? GUEST_EXITS[shutdown.reason] ?? `The guest ended (${shutdown.reason}).`,
      };
    }
    if (shutdown) return { reason: 'killed', detail: `QEMU was told to end (${shutdown.reason}).` };
    return {
      reason: 'crashed',
      detail: `QEMU ${exitStatus(this.#child)}. ${await lastLogLine(files.log)}`.trim(),
    };
  }
}

const GUEST_EXITS: Readonly<Record<string, string>> = {
  'guest-shutdown': 'The guest powered itself off.',
  'guest-reset': 'The guest restarted itself.',
};

/** A process that has ended is still there for its parent until that has asked for its status, as Node does by itself. */
async function untilReaped(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  // `release` may have allowed the program to end before the child does.
  child.ref();
  await once(child, 'exit');
}

function exitStatus(child: ChildProcess | undefined): string {
  if (!child) return 'ended';
  return child.signalCode ? `was ended by ${child.signalCode}` : `ended with status ${child.exitCode}`;
}

/** The last lines of QEMU's log in one; empty where it said nothing. */
export async function lastLogLine(path: string): Promise<string> {
  const tail = await logTail(path, 1000).catch(() => '');
  return tail.trim().split('\n').slice(-3).join('; ');
}

async function isFull(dir: string): Promise<boolean> {
  const { bavail, bsize } = await statfs(dir);
  return bavail * bsize < FULL_BYTES;
}
