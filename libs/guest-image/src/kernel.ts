import { createHash } from 'node:crypto';
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { WrennError } from '@wrenn/protocol/errors';
import semver from 'semver';
import { runCommand } from './command.ts';
import { decompress } from './compression.ts';
import { type CpioEntry, writeCpio } from './cpio.ts';
import type { DebianArchive } from './debian-archive.ts';
import { flushTree, place, temporaryFolder, writeFileAtomically } from './durable-files.ts';
import { GUEST_FOLDER, hashGuestFiles, hashOf } from './inputs.ts';
import { loadOrder, type ModuleInfo, readModuleInfo } from './kernel-modules.ts';
import { extractKernel } from './kernel-payload.ts';
import type { KernelManifest } from './manifest.ts';

/** What the initramfs needs to reach the root disk, and the network device before anything asks for it. */
const BOOT_MODULES = ['virtio_mmio', 'virtio_blk', 'virtio_net', 'ext4', 'crc32c_generic'];

/**
 * What guests load on demand: containers and their networks, tunnels, user-space and image file systems, entropy and
 * the clock of the host. Folders stand for all modules in them.
 */
const GUEST_MODULES = [
  'fs/overlayfs',
  'fs/fuse',
  'fs/squashfs',
  'fs/isofs',
  'drivers/block/loop.ko',
  'drivers/net/tun.ko',
  'drivers/net/veth.ko',
  'drivers/net/dummy.ko',
  'drivers/net/macvlan.ko',
  'drivers/net/ipvlan',
  'drivers/net/vxlan',
  'drivers/net/wireguard',
  'drivers/char/hw_random/virtio-rng.ko',
  'drivers/ptp/ptp_kvm.ko',
  'drivers/virtio/virtio_balloon.ko',
  'net/bridge',
  'net/netfilter',
  'net/ipv4/netfilter',
  'net/ipv6/netfilter',
];

/** Raised when the same inputs would give another kernel or initramfs. */
const FORMAT = 1;

export async function kernelInputs(codename: string, arch: string): Promise<string> {
  const files = await hashGuestFiles(['initramfs-init']);
  return hashOf({ FORMAT, codename, arch, files, BOOT_MODULES, GUEST_MODULES });
}

interface KernelBuild {
  readonly wrennDir: WrennDir;
  readonly archive: DebianArchive;
  /** A statically linked busybox. */
  readonly busybox: string;
  readonly signal: AbortSignal;
}

interface Module extends ModuleInfo {
  /** Relative to the folder of the kernel's modules. */
  readonly path: string;
  readonly content: Buffer;
}

/** Folder of the modules that images made for a kernel carry; complete with the indexes that modprobe reads. */
export function modulesFolder(wrennDir: WrennDir, version: string): string {
  return join(wrennDir.kernels, `modules-${version}`);
}

/**
 * Prepares the distribution's cloud kernel: `vmlinux-{semver}`, `initramfs-{semver}`, `modules-{semver}/` and, last,
 * `kernel-{semver}.json` in the folder of kernels. Nothing is installed on the host.
 */
export async function buildKernel({ wrennDir, archive, busybox, signal }: KernelBuild): Promise<KernelManifest> {
  const pkg = await archive.find(await cloudKernelPackage(archive));
  const version = semver.valid(pkg.version.replace(/^\d+:/, '').replaceAll(/[~+_]+/g, '.'));
  if (version === null) throw kernelError(`the version ${pkg.version} of ${pkg.name} has no semantic form`);

  await mkdir(wrennDir.kernels, { recursive: true });
  await using work = await temporaryFolder(wrennDir.kernels);
  const unpacked = join(work.path, 'package');
  await archive.unpack(pkg, unpacked);
  const bootFiles = await readdir(join(unpacked, 'boot'));
  const vmlinuz = bootFiles.find((name) => name.startsWith('vmlinuz-'));
  if (vmlinuz === undefined) throw kernelError(`${pkg.name} holds no vmlinuz`);
  const release = vmlinuz.slice('vmlinuz-'.length);
  const vmlinux = await extractKernel(await readFile(join(unpacked, 'boot', vmlinuz)), signal);

  const available = await modulesOf(join(unpacked, await modulesRoot(unpacked), release), signal);
  const boot = await loadOrder(BOOT_MODULES, (name) => available.byName(name));
  const initramfs = writeCpio(await initramfsEntries(busybox, boot));
  const staged = join(work.path, 'modules');
  await stageGuestModules({ staged, release, available, busybox, signal });

  const target = (name: string) => join(wrennDir.kernels, `${name}-${version}`);
  // Without its manifest a kernel counts as not prepared, so a crash from here on is mended by the next build.
  const manifestPath = `${target('kernel')}.json`;
  await rm(manifestPath, { force: true });
  await rm(target('modules'), { recursive: true, force: true });
  await flushTree(staged);
  await place(join(staged, 'lib', 'modules'), target('modules'));
  for (const [name, content] of [['vmlinux', vmlinux] as const, ['initramfs', initramfs] as const]) {
    await writeFileAtomically(target(name), content, 0o444);
  }
  const manifest: KernelManifest = {
    version,
    package: pkg,
    vmlinuxSha256: sha256(vmlinux),
    initramfsSha256: sha256(initramfs),
    modules: boot.map((module) => module.name),
    inputs: await kernelInputs(archive.codename, archive.architecture.debian),
    createdAt: new Date().toISOString(),
  };
  await writeFileAtomically(manifestPath, `${JSON.stringify(manifest, null, 2)}\n`);
  return manifest;
}

/** The cloud kernel's meta package depends on the package of the current kernel. */
async function cloudKernelPackage(archive: DebianArchive): Promise<string> {
  const meta = `linux-image-cloud-${archive.architecture.debian}`;
  await archive.find(meta);
  const name = (await archive.dependencies(meta)).find((dependency) => dependency.startsWith('linux-image-'));
  if (name === undefined) throw kernelError(`${meta} depends on no kernel`);
  return name;
}

async function modulesRoot(unpacked: string): Promise<string> {
  const top = await readdir(unpacked);
  return top.includes('lib') ? 'lib/modules' : 'usr/lib/modules';
}

interface AvailableModules {
  readonly root: string;
  /** Paths relative to `root`. */
  readonly paths: readonly string[];
  byName(name: string): Promise<Module | undefined>;
}

async function modulesOf(root: string, signal: AbortSignal): Promise<AvailableModules> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => entry.isFile() && /\.ko(\.xz|\.zst|\.gz)?$/.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .sort();
  const byName = new Map(paths.map((path) => [moduleName(path), path]));
  return {
    root,
    paths,
    async byName(name) {
      const path = byName.get(name);
      if (path === undefined) return undefined;
      const stored = await readFile(join(root, path));
      const content = path.endsWith('.ko') ? stored : await decompress(stored, signal);
      return { ...readModuleInfo(content), path: path.replace(/\.ko\..*$/, '.ko'), content };
    },
  };
}

async function initramfsEntries(busybox: string, modules: readonly Module[]): Promise<CpioEntry[]> {
  const file = (path: string, content: Uint8Array, executable = false): CpioEntry => ({
    kind: 'file',
    path,
    content,
    executable,
  });
  const order = modules.map((module) => `${basename(module.path)}\n`).join('');
  return [
    ...['bin', 'dev', 'modules', 'proc', 'root', 'sys'].map((path): CpioEntry => ({ kind: 'directory', path })),
    { kind: 'device', path: 'dev/console', major: 5, minor: 1 },
    { kind: 'device', path: 'dev/null', major: 1, minor: 3 },
    file('bin/busybox', await readFile(busybox), true),
    file('init', await readFile(join(GUEST_FOLDER, 'initramfs-init')), true),
    ...modules.map((module) => file(`modules/${basename(module.path)}`, module.content)),
    file('modules/order', Buffer.from(order)),
  ];
}

interface StagedModules {
  readonly staged: string;
  readonly release: string;
  readonly available: AvailableModules;
  readonly busybox: string;
  readonly signal: AbortSignal;
}

async function stageGuestModules({ staged, release, available, busybox, signal }: StagedModules): Promise<void> {
  const wanted = available.paths.filter((path) =>
    GUEST_MODULES.some((part) => path.startsWith(part.endsWith('.ko') ? `kernel/${part}` : `kernel/${part}/`)),
  );
  const folder = join(staged, 'lib', 'modules', release);
  for (const module of await loadOrder([...wanted.map(moduleName), ...BOOT_MODULES], available.byName)) {
    const path = join(folder, module.path);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, module.content);
  }
  for (const index of ['modules.builtin', 'modules.builtin.modinfo']) {
    await cp(join(available.root, index), join(folder, index));
  }
  await runCommand(busybox, ['depmod', '-b', staged, release], { signal, timeoutMs: 60_000 });
}

/** A module file's name as the kernel spells it. */
function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(\..*)?$/, '')
    .replaceAll('-', '_');
}

function kernelError(problem: string): WrennError {
  return new WrennError('image_build_failed', { step: 'kernel', problem });
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
