import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { chmod, chown, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import type { MemorySnapshot, VmSpec } from '../hypervisor.ts';
import { checkQcow2Header } from '../qcow2-header.ts';
import { killProcess, type ProcessKey, processKey } from '../vm-process.ts';
import { type QemuProgram, qemuArguments } from './machine.ts';

/** Names inside a VM's run folder. */
export function vmFiles(runDir: string) {
  return {
    controlSocket: join(runDir, 'qmp.sock'),
    /** What the guest printed on its serial console. */
    console: join(runDir, 'console.log'),
    /** What QEMU itself said. */
    log: join(runDir, 'qemu.log'),
    /** The only folder that QEMU sees once it runs. */
    jail: join(runDir, 'jail'),
  } as const;
}

/** Names inside a snapshot's folder. */
export function snapshotFiles(dir: string) {
  return { memory: join(dir, 'memory'), devices: join(dir, 'devices') } as const;
}

/** Linux keeps a socket's path in 108 bytes, with a zero at the end. */
export const MAX_SOCKET_PATH_BYTES = 107;

/** The process's descriptors besides the standard ones. */
const CONTROL_FD = 3;
const DEVICES_FD = 4;

/**
 * $1 is the network namespace, then cgroup.procs files up to "--", then the program. `exec` keeps the pid, so that the
 * process is in its cgroups before it is QEMU.
 */
const LAUNCHER = `
set -eu
umask 077
ulimit -c 0
namespace=$1
shift
while [ "$1" != -- ]; do echo $$ >"$1"; shift; done
shift
exec nsenter --net="$namespace" -- "$@"
`;

/** A QEMU process that has begun. */
export interface Launched {
  readonly key: ProcessKey;
  readonly child: ChildProcess;
  /** Unread connection to QEMU's control protocol. */
  readonly control: Duplex;
}

/** Starts QEMU's process and returns at once. It is in a session of its own and outlives this process. */
export async function launchQemu(program: QemuProgram, spec: VmSpec, snapshot?: MemorySnapshot): Promise<Launched> {
  const files = vmFiles(spec.runDir);
  if (Buffer.byteLength(files.controlSocket) > MAX_SOCKET_PATH_BYTES) {
    throw new Error(
      `The path of the VM's socket is too long for Linux; use a shorter WRENN_DIR: ${files.controlSocket}`,
    );
  }
  for (const layer of [spec.disk, ...(spec.disk.backing ?? [])]) {
    if (layer.format === 'qcow2') await checkQcow2Header(layer.path);
  }
  await prepareRunDir(spec);
  await using log = await openLog(files.log);
  await using devices = snapshot === undefined ? undefined : await open(snapshotFiles(snapshot.dir).devices, 'r');
  const start =
    snapshot === undefined
      ? ({ kind: 'boot' } as const)
      : ({ kind: 'restore', memoryPath: snapshotFiles(snapshot.dir).memory, devicesFd: DEVICES_FD } as const);
  const launchFiles = {
    controlFd: CONTROL_FD,
    controlSocket: files.controlSocket,
    consolePath: files.console,
    jailDir: files.jail,
  };
  const child = spawn(
    '/bin/sh',
    [
      ...['-c', LAUNCHER, 'wrenn-vm', spec.network.namespacePath, ...spec.cgroupProcs, '--'],
      ...[program.path, ...qemuArguments(program, spec, start, launchFiles)],
    ],
    {
      cwd: '/',
      detached: true,
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
      // Node makes a pipe of a Unix socket pair, which QEMU takes as a control connection that needs no waiting for.
      stdio: ['ignore', log.fd, log.fd, 'pipe', ...(devices ? [devices.fd] : [])],
    },
  );
  return await started(child);
}

async function started(child: ChildProcess): Promise<Launched> {
  const spawned = Promise.withResolvers<void>();
  child.once('spawn', spawned.resolve);
  child.once('error', spawned.reject);
  await spawned.promise;
  const control = child.stdio[CONTROL_FD];
  const key = child.pid === undefined ? undefined : processKey(child.pid);
  if (!(control instanceof Duplex)) {
    if (key) await killProcess(key);
    throw new Error('Node gave no connection to the child');
  }
  if (key === undefined) {
    control.destroy();
    throw new Error('The launcher ended at once');
  }
  return { key, child, control };
}

/** Leaves an empty jail and fresh logs. What an earlier process of the same VM left behind goes. */
async function prepareRunDir(spec: VmSpec): Promise<void> {
  const files = vmFiles(spec.runDir);
  await Promise.all([
    rm(files.controlSocket, { force: true }),
    rm(files.console, { force: true }),
    rm(files.jail, { recursive: true, force: true }),
  ]);
  await mkdir(files.jail);
  await chown(files.jail, spec.uid, spec.gid);
  await chmod(files.jail, 0o700);
  await (await openLog(files.console)).close();
}

/** Every writer appends, so that the file can be cut short while it is written. */
function openLog(path: string) {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | constants.O_NOFOLLOW;
  return open(path, flags, 0o600);
}
