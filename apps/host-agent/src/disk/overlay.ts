import { chmod, statfs } from 'node:fs/promises';
import { WrennError } from '@wrenn/protocol/errors';
import { runCommand } from '../processes/run-command.ts';

const MIB = 1024 * 1024;
/** A VM's overlay begins empty and grows; with less than this left it could not even begin. */
const RESERVE_BYTES = 64 * MIB;

/** The hypervisor is told of every layer and does not believe the name that an overlay holds, but there must be one. */
const NOMINAL_BACKING = 'below.qcow2';

/**
 * Makes an empty qcow2 that lies over whatever it is put over.
 *
 * @param sizeMb Size of the disk that the guest sees; at least that of the layers below.
 */
export async function createBlankOverlay(path: string, sizeMb: number, signal: AbortSignal): Promise<void> {
  // -u: the backing file is not there.
  const backing = ['-u', '-b', NOMINAL_BACKING, '-F', 'qcow2'];
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, path, `${sizeMb}M`], { signal });
  await chmod(path, 0o600);
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
