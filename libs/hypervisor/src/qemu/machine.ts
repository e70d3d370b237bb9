import type { DiskLayer, HypervisorIdentity, VmSpec } from '../hypervisor.ts';

export type Architecture = 'x86_64' | 'aarch64';
export type Accelerator = 'kvm' | 'tcg';

/** What differs between processor architectures. */
export interface Machine {
  readonly program: string;
  /** Debian package that holds the program. */
  readonly package: string;
  /** `-machine`, without the memory backend. */
  readonly machine: string;
  /** `-cpu` under emulation. */
  readonly emulatedCpu: string;
  /** First physical address of guest memory. */
  readonly memoryBase: number;
  /** Kernel parameters for every accelerator. */
  readonly kernelParameters: readonly string[];
  /** Kernel parameters under emulation only; `tscKhz` is the host's. */
  readonly emulationParameters: (tscKhz: number | undefined) => readonly string[];
  /** Settings of devices that the VM is made with. */
  readonly globals: readonly string[];
}

const COMMON_PARAMETERS = [
  'quiet',
  // A panic restarts the guest at once, and `-no-reboot` makes the end of the process of that.
  'panic=-1',
  // Emulated and virtual CPUs have their seed from the host; without trust the kernel waits for entropy.
  'random.trust_cpu=on',
];

export const MACHINES: Readonly<Record<Architecture, Machine>> = {
  x86_64: {
    program: 'qemu-system-x86_64',
    package: 'qemu-system-x86',
    // ACPI: Debian's cloud kernel finds virtio-mmio devices in no other way. Its tables also bring power-off.
    machine: 'microvm,acpi=on',
    // ERMS tells kernel and libraries to copy and clear by `rep movsb` and `rep stosb`, which is emulated byte by byte.
    emulatedCpu: 'max,erms=off,fsrm=off',
    memoryBase: 0,
    kernelParameters: ['console=ttyS0', 'reboot=t', ...COMMON_PARAMETERS],
    emulationParameters: (tscKhz) => [
      // The guest cannot attack what emulates it by speculation; its own mitigations only cost time.
      'mitigations=off',
      'nokaslr',
      // Calibration against the emulated timer hangs; the emulated TSC runs at the host's rate.
      ...(tscKhz === undefined ? [] : [`tsc_early_khz=${tscKhz}`]),
      'tsc=reliable',
      'no_timer_check',
    ],
    globals: ['virtio-mmio.force-legacy=false'],
  },
  // Written after QEMU's documentation of `virt`; no machine to try it on yet.
  aarch64: {
    program: 'qemu-system-aarch64',
    package: 'qemu-system-arm',
    machine: 'virt,gic-version=max',
    emulatedCpu: 'max',
    memoryBase: 0x4000_0000,
    kernelParameters: ['console=ttyAMA0', ...COMMON_PARAMETERS],
    emulationParameters: () => ['mitigations=off', 'nokaslr'],
    globals: ['virtio-mmio.force-legacy=false'],
  },
};

/** A QEMU program on this host, and how it shall run VMs. */
export interface QemuProgram {
  readonly path: string;
  readonly identity: HypervisorIdentity & { readonly kind: 'qemu'; readonly arch: Architecture };
  /** Rate of the host's time stamp counter; x86 under emulation needs it. */
  readonly tscKhz: number | undefined;
}

/** How the VM begins. */
export type VmStart =
  | { readonly kind: 'boot' }
  /** `devicesFd` is the process's descriptor of the saved devices. */
  | { readonly kind: 'restore'; readonly memoryPath: string; readonly devicesFd: number };

/** Paths and descriptors that the driver prepared for one VM's process. */
export interface LaunchFiles {
  /** Socket that the driver already holds the other end of. */
  readonly controlFd: number;
  /** Where QEMU listens for a later agent. */
  readonly controlSocket: string;
  readonly consolePath: string;
  /** Empty folder of the VM's user, which becomes the root folder of the process. */
  readonly jailDir: string;
}

/** QEMU's arguments. The order of devices is part of what a snapshot depends on. */
export function qemuArguments(program: QemuProgram, spec: VmSpec, start: VmStart, files: LaunchFiles): string[] {
  const { identity } = program;
  const machine = MACHINES[identity.arch];
  return [
    // Names the VM in /proc/{pid}/cmdline, by which a later agent knows it.
    ...['-name', vmNameArgument(spec.id)],
    ...['-no-user-config', '-nodefaults', '-display', 'none', '-no-reboot'],
    ...['-machine', `${machine.machine},memory-backend=ram,suppress-vmdesc=on`],
    ...['-accel', acceleratorArgument(identity.accelerator, identity.version, spec.shape.vcpus)],
    ...['-cpu', identity.accelerator === 'kvm' ? 'host' : machine.emulatedCpu],
    ...['-smp', String(spec.shape.vcpus), '-m', `${spec.shape.memoryMb}M`],
    ...[...machine.globals, 'migration.send-configuration=off'].flatMap((setting) => ['-global', setting]),
    ...['-object', JSON.stringify(memoryBackend(spec, start, identity.version))],
    ...['-blockdev', JSON.stringify(diskNode(spec))],
    ...device({
      driver: 'virtio-blk',
      drive: DISK_NODE,
      // A full disk of the host is not the guest's: it waits for space. While layers are merged its reads write too.
      werror: 'enospc',
      rerror: 'enospc',
    }),
    ...[
      '-netdev',
      JSON.stringify({ type: 'tap', id: 'net', ifname: spec.network.tap, script: 'no', downscript: 'no' }),
    ],
    ...device({ driver: 'virtio-net', netdev: 'net', mac: spec.network.mac }),
    ...['-object', JSON.stringify({ 'qom-type': 'rng-builtin', id: 'rng' })],
    ...device({ driver: 'virtio-rng', rng: 'rng' }),
    ...['-chardev', `file,id=console,path=${escapeOption(files.consolePath)},append=on`, '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=control,fd=${files.controlFd}`, '-mon', 'chardev=control,mode=control'],
    ...['-chardev', `socket,id=control-again,path=${escapeOption(files.controlSocket)},server=on,wait=off`],
    ...['-mon', 'chardev=control-again,mode=control'],
    ...['-sandbox', 'on,obsolete=deny,spawn=deny,resourcecontrol=deny'],
    ...dropPrivileges(identity.version, spec, files.jailDir),
    ...startArguments(program, machine, spec, start),
  ];
}

/** The argument by which the VM's process is told from others. */
export function vmNameArgument(id: string): string {
  return `guest=wrenn-${id}`;
}

function acceleratorArgument(accelerator: Accelerator, version: string, vcpus: number): string {
  if (accelerator === 'kvm') return 'kvm';
  // Several emulated vCPUs on several threads crashed guests of QEMU 7.2, and do not with QEMU 10.
  const thread = vcpus > 1 && !isAtLeast(version, 10, 0) ? ',thread=single' : '';
  // The default, an eighth of the host's memory up to 1 GiB, is what each VM may fill with translated code.
  return `tcg,tb-size=256${thread}`;
}

function memoryBackend(spec: VmSpec, start: VmStart, version: string) {
  const size = spec.shape.memoryMb * 1024 * 1024;
  if (start.kind === 'boot') return { 'qom-type': 'memory-backend-ram', id: 'ram', size };
  return {
    'qom-type': 'memory-backend-file',
    id: 'ram',
    size,
    'mem-path': start.memoryPath,
    // A private mapping: every VM of this snapshot shares the file's pages and keeps to itself what it writes.
    share: false,
    // Older versions map what they open read-only without write access for the guest, so they open it for writing.
    ...(isAtLeast(version, 8, 2) ? { readonly: true, rom: 'off' } : {}),
  };
}

/** The node "disk" and those below it. */
function diskNode({ disk }: VmSpec): object {
  const file = {
    driver: 'file',
    filename: disk.path,
    discard: 'unmap',
    aio: 'threads',
    // The guest's flushes need not reach stable storage: after a host's crash the VM's memory is gone too, and what
    // survives is its last snapshot, which is fsynced as a whole.
    cache: { 'no-flush': true },
  };
  const settings = { 'node-name': DISK_NODE, discard: 'unmap', 'detect-zeroes': 'unmap' };
  const backing = disk.backing === undefined ? {} : { backing: backingNode(disk.backing) };
  return { driver: disk.format, file, ...settings, ...(disk.format === 'qcow2' ? backing : {}) };
}

function backingNode([layer, ...below]: readonly DiskLayer[]): object | null {
  if (layer === undefined) return null;
  const readOnly = { 'read-only': true };
  return {
    driver: layer.format,
    'node-name': layerNodeName(below.length),
    file: { driver: 'file', filename: layer.path, ...readOnly },
    ...readOnly,
    ...(layer.format === 'qcow2' ? { backing: backingNode(below) } : {}),
  };
}

/** The writable top of the VM's disk. */
export const DISK_NODE = 'disk';

/**
 * A read-only layer of the VM's disk, counted from 0 at the base upwards: a layer keeps its name when layers above it
 * are merged, so that an agent which did not start the VM finds it.
 */
export function layerNodeName(layersBelow: number): string {
  return `layer-${layersBelow}`;
}

/** A device on virtio-mmio, which is what the end "-device" of its name says. */
function device(properties: Readonly<Record<string, string>> & { readonly driver: string }): string[] {
  return ['-device', JSON.stringify({ ...properties, driver: `${properties.driver}-device` })];
}

function dropPrivileges(version: string, spec: VmSpec, jailDir: string): string[] {
  const user = `${spec.uid}:${spec.gid}`;
  if (isAtLeast(version, 9, 1)) return ['-run-with', `chroot=${escapeOption(jailDir)},user=${user}`];
  if (isAtLeast(version, 8, 1)) return ['-run-with', `chroot=${escapeOption(jailDir)}`, '-runas', user];
  return ['-chroot', jailDir, '-runas', user];
}

function startArguments(program: QemuProgram, machine: Machine, spec: VmSpec, start: VmStart): string[] {
  // A restored guest has its kernel in memory already; not naming it saves reading it.
  if (start.kind === 'restore') return ['-incoming', `fd:${start.devicesFd}`];
  const emulation = program.identity.accelerator === 'tcg' ? machine.emulationParameters(program.tscKhz) : [];
  return [
    ...['-kernel', spec.kernelPath, '-initrd', spec.initramfsPath],
    ...['-append', [...machine.kernelParameters, ...emulation].join(' ')],
  ];
}

/** In QEMU's `a=b,c=d` lists a comma in a value is written twice. */
function escapeOption(value: string): string {
  return value.replaceAll(',', ',,');
}

/** Whether a version such as "7.2.22" is `major.minor` or later. */
export function isAtLeast(version: string, major: number, minor: number): boolean {
  const [ownMajor = 0, ownMinor = 0] = version.split('.').map(Number);
  return ownMajor > major || (ownMajor === major && ownMinor >= minor);
}
