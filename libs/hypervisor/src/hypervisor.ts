/** Everything that a memory snapshot depends on besides the guest: a snapshot is only restored by an equal identity. */
export interface HypervisorIdentity {
  readonly kind: 'qemu' | 'firecracker';
  /** Version of the program, e.g. "7.2.22". */
  readonly version: string;
  /** Hardware virtualisation, or QEMU's software emulation. */
  readonly accelerator: 'kvm' | 'tcg';
  /** "x86_64" or "aarch64". */
  readonly arch: string;
  /** CPU model that the guest sees; with KVM it names the host's own. */
  readonly cpu: string;
}

export interface VmShape {
  readonly vcpus: number;
  /** Guest memory in MiB. */
  readonly memoryMb: number;
}

/** One file of a disk. */
export interface DiskLayer {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
}

/** What a VM is made of. All paths are absolute. */
export interface VmSpec {
  readonly id: string;
  readonly shape: VmShape;
  /** ELF kernel. */
  readonly kernelPath: string;
  readonly initramfsPath: string;
  readonly disk: DiskLayer & {
    /**
     * The read-only layers below a qcow2 overlay, nearest first, down to the base. Without this the names in the files
     * are believed, which an overlay that a guest's hypervisor has written to should not be.
     */
    readonly backing?: readonly DiskLayer[];
  };
  readonly network: {
    /** Network namespace to run in, e.g. `/run/netns/wrenn-ns-7`. */
    readonly namespacePath: string;
    /** TAP device inside that namespace. */
    readonly tap: string;
    readonly mac: string;
  };
  /** The hypervisor process drops to this user and group, which no other VM on the host has. */
  readonly uid: number;
  readonly gid: number;
  /** `cgroup.procs` files that the process enters before it starts. */
  readonly cgroupProcs: readonly string[];
  /** Folder for the control socket, console and log of this VM; exists. `uid` needs no rights in it. */
  readonly runDir: string;
}

/** Memory and device state of one VM at one instant, as files in one folder. Immutable once written. */
export interface MemorySnapshot {
  readonly dir: string;
  readonly shape: VmShape;
  readonly identity: HypervisorIdentity;
}

/** What finds a VM's process again after the agent restarted. JSON. */
export interface VmProcessRecord {
  readonly pid: number;
  /** Field 22 of /proc/{pid}/stat: tells this process from a later one with the same pid. */
  readonly startTicks: string;
  readonly controlSocket: string;
  readonly identity: HypervisorIdentity;
}

/** How a VM's process ended. */
export interface VmExit {
  /** `guest`: the guest shut down or panicked; `killed`: we ended it; `crashed`: the hypervisor ended by itself. */
  readonly reason: 'guest' | 'killed' | 'crashed';
  /** One line for a person; the end of the hypervisor's own log where it crashed. */
  readonly detail: string;
}

/** How far a disk's layers are merged. */
export interface DiskCompaction {
  /** Layers that stay as they are, counted from the base up: 2 keeps a base and the layer over it. At least 1. */
  readonly keepLayers: number;
  /** Bounds how fast layers are read; without it as fast as the disk is. */
  readonly maxBytesPerSecond?: number;
}

/** `merged`: the layers are not used any more; `interrupted`: all of them still are. */
export type DiskCompactionResult = 'merged' | 'interrupted';

/** Why a VM that should run stands still: the host could not carry out a request to its disk. */
export interface DiskStop {
  readonly operation: 'read' | 'write';
  readonly hostDiskFull: boolean;
  /** The kernel's words. */
  readonly reason: string;
}

/** A VM whose process runs. Dropping the object leaves the process alone; `kill` ends it. */
export interface RunningVm {
  readonly id: string;
  readonly process: VmProcessRecord;
  /** Settles once, when the process has ended, whoever ended it. Never rejects. */
  readonly exited: Promise<VmExit>;
  /** Freezes the vCPUs. Interrupts a compaction first. Idempotent. */
  pause(signal: AbortSignal): Promise<void>;
  /** Lets the vCPUs run. Idempotent. */
  resume(signal: AbortSignal): Promise<void>;
  /**
   * Writes memory and devices of the paused VM into `dir` (exists, empty) and flushes its
   * disk. The VM stays paused. The files and the disk are complete in the kernel's cache but not yet fsynced: whoever
   * promises that they last fsyncs both. May be repeated while the VM stands still.
   *
   * @throws Error also for a VM that an earlier agent left standing, or whose devices or disk could not be written:
   * such a VM must `resume` first.
   */
  saveSnapshot(dir: string, signal: AbortSignal): Promise<MemorySnapshot>;
  /**
   * Copies what the layers above the kept ones hold into the disk's overlay while the VM runs. Once it has `merged`, the
   * VM's disk consists of the overlay and the kept layers only. Needs `disk.backing` to have been given. The overlay
   * itself stays the same file. What was copied before an interruption or an error need not be copied again.
   *
   * @throws Error where the VM is paused, a compaction runs already, or the host's disk fails (its cause in words); the
   * signal's reason. The VM and its disk go on as before then.
   */
  compactDisk(options: DiskCompaction, signal: AbortSignal): Promise<DiskCompactionResult>;
  /**
   * Calls `listener` when the VM comes to stand still because the host's disk is full, at once where it does now, and
   * with undefined when it goes on or was paused. Nothing of the guest is lost and it sees no error: its request is
   * tried again every second until there is space. @returns a function that ends this.
   */
  onDiskStop(listener: (stop: DiskStop | undefined) => void): () => void;
  /** Ends the process, at once, and waits until it is gone. Idempotent. */
  kill(): Promise<void>;
  /** Closes the control connection and leaves the VM running. From then on only `kill` is of use, and `exited` is silent. */
  release(): void;
}

/** One way to run VMs. Every call ends by its signal; a call that fails leaves no process behind. */
export interface Hypervisor {
  readonly identity: HypervisorIdentity;
  /** Starts a VM from power-on. Resolves when its vCPUs run. */
  boot(spec: VmSpec, signal: AbortSignal): Promise<RunningVm>;
  /** Starts a VM from a snapshot, copy-on-write over the snapshot's memory file. Resolves when its vCPUs run. */
  restore(spec: VmSpec, snapshot: MemorySnapshot, signal: AbortSignal): Promise<RunningVm>;
  /** The VM of an earlier agent, if its process still runs. */
  adopt(id: string, record: VmProcessRecord, signal: AbortSignal): Promise<RunningVm | undefined>;
}
