import { chmod, copyFile, link, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { WrennError } from '@wrenn/protocol/errors';
import { runCommand } from '../processes/run-command.ts';

const MIB = 1024 * 1024;
/** A VM's overlay begins empty and grows; with less than this left it could not even begin. */
const RESERVE_BYTES = 64 * MIB;

/**
 * Makes an empty qcow2 over an immutable root file system, which it names by its full path.
 *
 * @param sizeMb Size of the disk that the guest sees; at least the base's.
 */
export async function createBaseOverlay(
  path: string,
  rootfsPath: string,
  sizeMb: number,
  signal: AbortSignal,
): Promise<void> {
  const backing = ['-b', rootfsPath, '-F', 'raw'];
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, path, `${sizeMb}M`], { signal });
  await chmod(path, 0o600);
}

/** Beside a VM's overlay: a second name of the frozen disk that it lies over. */
const FROZEN_NAME = 'template.qcow2';

/**
 * Makes the empty overlay that every VM of a template snapshot begins with. It names the frozen disk by a relative
 * path, so that a copy works in any folder that has the frozen disk beside it.
 */
export async function createBlankOverlay(path: string, sizeMb: number, signal: AbortSignal): Promise<void> {
  // -u: the backing file is not there yet.
  const backing = ['-u', '-b', FROZEN_NAME, '-F', 'qcow2'];
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, path, `${sizeMb}M`], { signal });
  await chmod(path, 0o600);
}

/**
 * Gives a VM its disk: a copy of the blank overlay, and a hard link to the frozen disk below it. The link keeps that
 * disk alive for as long as the VM has it, whatever becomes of the snapshot. The chain is always VM, frozen, base.
 */
export async function layOverlay(dir: string, blankPath: string, frozenPath: string): Promise<string> {
  const path = join(dir, 'disk.qcow2');
  await Promise.all([link(frozenPath, join(dir, FROZEN_NAME)), copyFile(blankPath, path)]);
  return path;
}

/**
 * Refuses early what could not end well.
 *
 * @param extraBytes What the coming step is going to write.
 * @throws WrennError host_disk_full
 */
export async function checkFreeSpace(dir: string, extraBytes = 0): Promise<void> {
  const { bavail, bsize } = await statfs(dir);
  if (bavail * bsize < RESERVE_BYTES + extraBytes) throw new WrennError('host_disk_full');
}
