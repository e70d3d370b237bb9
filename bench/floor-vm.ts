import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdir, mkdtemp, open, readdir, rm, writeFile } from 'node:fs/promises';
import { Agent } from 'node:http';
import { basename, join } from 'node:path';
import { type Client, createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { newestKernel } from '@wrenn/guest-image/catalog';
import type { VmCgroups } from '@wrenn/host-agent/confinement/vm-cgroups';
import { diskFolder, diskOf, layDisk } from '@wrenn/host-agent/disk/disk-chain';
import { createBlankOverlay } from '@wrenn/host-agent/disk/overlay';
import { askGuest } from '@wrenn/host-agent/guest/guest-connection';
import { initGuest } from '@wrenn/host-agent/guest/init-guest';
import { GUEST, type Slot } from '@wrenn/host-agent/network/slot';
import { readManifest, snapshotFolder } from '@wrenn/host-agent/snapshots/sealed-folder';
import type { VmSpec } from '@wrenn/hypervisor/hypervisor';
import { type QemuProgram, qemuArguments, type VmStart } from '@wrenn/hypervisor/qemu/machine';
import { Process } from '@wrenn/protocol/gen/process/process_pb';

const START_TIMEOUT_MS = 60_000;

const TOKEN = 'floor';

/** What a floor VM starts from: the same template snapshot that capsules start from. */
export interface FloorSource {
  readonly program: QemuProgram;
  /** WRENN_DIR of a platform that has made a snapshot. */
  readonly dir: string;
  readonly slot: Slot;
  readonly cgroups: VmCgroups;
}

/**
 * A VM as the barest script would start it: one QEMU process and requests to its guest agent, with no agent, no
 * journal, no database, no token. Its start is the floor that a create is measured against.
 */
export interface FloorVm extends AsyncDisposable {
  /** Address of the guest agent, which asks for no token. */
  readonly guestUrl: string;
  readonly pid: number;
}

/** Restores a VM and returns once its guest agent has answered one request. */
export async function restoreFloorVm(source: FloorSource): Promise<FloorVm> {
  const { templateSnapshots } = wrennDir(source.dir);
  const [key] = await readdir(templateSnapshots);
  if (!key) throw new Error('the platform has made no template snapshot yet');
  const snapshot = snapshotFolder(join(templateSnapshots, key));
  const { shape, layers } = await readManifest(snapshot.dir);
  return start(source, shape, async (runDir) => {
    await layDisk(snapshot.dir, runDir, layers);
    return {
      disk: diskOf(runDir, layers),
      devices: join(snapshot.memory, 'devices'),
      memory: join(snapshot.memory, 'memory'),
    };
  });
}

/** Boots a VM from power-on and returns once its guest agent has answered one request. */
export function bootFloorVm(source: FloorSource, rootfsPath: string): Promise<FloorVm> {
  return start(source, { vcpus: 1, memoryMb: 512 }, async (runDir) => {
    const path = diskFolder(runDir).own;
    await createBlankOverlay(path, 5120, AbortSignal.timeout(START_TIMEOUT_MS));
    return { disk: { path, format: 'qcow2', backing: [{ path: rootfsPath, format: 'raw' }] } };
  });
}

/** Settles the VM as a capsule is settled, with a token and a default user, and returns a client of its processes. */
export async function settleFloorVm(vm: FloorVm, user: string): Promise<Client<typeof Process>> {
  const { hostname } = new URL(vm.guestUrl);
  const settings = { accessToken: TOKEN, envs: {}, user, workdir: '', hostname: 'floor' };
  await initGuest('floor', hostname, settings, AbortSignal.timeout(START_TIMEOUT_MS));
  const transport = createConnectTransport({
    baseUrl: vm.guestUrl,
    httpVersion: '1.1',
    // Its own connections: the next VM has the same address, and knows nothing of those of this one.
    nodeOptions: { agent: new Agent({ keepAlive: true }) },
    interceptors: [
      (next) => (request) => {
        request.header.set('x-access-token', TOKEN);
        return next(request);
      },
    ],
  });
  return createClient(Process, transport);
}

/** What the API gives a command that asks for no other deadline. */
const EXEC_TIMEOUT_MS = 30_000;

/** Runs `true` in the guest, to its end. */
export async function runTrue(envd: Client<typeof Process>): Promise<void> {
  const events = envd.start({ process: { cmd: 'true' }, stdin: false }, { timeoutMs: EXEC_TIMEOUT_MS });
  for await (const { event } of events) {
    if (event?.event.case === 'end' && event.event.value.exitCode !== 0) throw new Error('true failed');
  }
}

interface FloorFiles {
  readonly disk: VmSpec['disk'];
  readonly devices?: string;
  readonly memory?: string;
}

async function start(
  { program, dir, slot, cgroups }: FloorSource,
  shape: { vcpus: number; memoryMb: number },
  layFiles: (runDir: string) => Promise<FloorFiles>,
): Promise<FloorVm> {
  const kernel = await newestKernel(wrennDir(dir));
  if (!kernel) throw new Error('there is no kernel');
  const runDir = await mkdtemp(join(dir, 'floor-'));
  const files = await layFiles(runDir);
  const jailDir = join(runDir, 'jail');
  await mkdir(jailDir);
  await chown(jailDir, slot.uid, slot.gid);
  const spec = {
    id: 'floor',
    shape,
    kernelPath: kernel.vmlinuxPath,
    initramfsPath: kernel.initramfsPath,
    disk: files.disk,
    network: { namespacePath: slot.namespacePath, tap: GUEST.tap, mac: GUEST.mac },
    uid: slot.uid,
    gid: slot.gid,
    cgroupProcs: [],
    runDir,
  };
  const launch = {
    controlFd: 3,
    controlSocket: join(runDir, 'qmp.sock'),
    consolePath: join(runDir, 'console.log'),
    jailDir,
  };
  const start: VmStart = files.memory ? { kind: 'restore', memoryPath: files.memory, devicesFd: 4 } : { kind: 'boot' };
  await using devices = files.devices ? await open(files.devices, 'r') : undefined;
  const child = spawn(
    'nsenter',
    [`--net=${slot.namespacePath}`, '--', program.path, ...qemuArguments(program, spec, start, launch)],
    { stdio: ['ignore', 'ignore', 'inherit', 'pipe', ...(devices ? [devices.fd] : [])] },
  );
  const dispose = async () => {
    await end(child);
    await cgroups.remove(basename(runDir));
    await rm(runDir, { recursive: true, force: true });
  };
  try {
    await enterCgroup(cgroups, basename(runDir), shape, child);
    await askGuest({ hostIp: slot.hostIp, method: 'GET', path: '/health' }, AbortSignal.timeout(START_TIMEOUT_MS));
    if (child.pid === undefined) throw new Error('QEMU has no pid');
    return { guestUrl: `http://${slot.hostIp}:49983`, pid: child.pid, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/**
 * Puts a hypervisor beside those of the platform: on a busy machine, groups share the CPU, and one outside of them would
 * get more of it than any VM.
 */
export async function enterCgroup(
  cgroups: VmCgroups,
  name: string,
  shape: { readonly vcpus: number; readonly memoryMb: number },
  { pid }: ChildProcess,
): Promise<void> {
  if (pid === undefined) throw new Error('QEMU has no pid');
  for (const procs of await cgroups.create(name, shape)) await writeFile(procs, String(pid));
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}
