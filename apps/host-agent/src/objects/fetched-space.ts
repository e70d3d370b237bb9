import { statfs } from 'node:fs/promises';
import { WrennError } from '@wrenn/protocol/errors';

/** What is fetched from other hosts takes no more of the disk than this share, all together. */
const MAX_SHARE = 1 / 4;
/** Left free beyond what is fetched. */
const RESERVE_BYTES = 64 * 1024 * 1024;
/** What was used since is needed: a VM may be about to start from it. */
const IN_USE_MS = 600_000;

/** Something on this host that can be fetched again. */
export interface FetchedCopy {
  readonly name: string;
  /** Bytes on disk. */
  readonly bytes: number;
  readonly usedAtMs: number;
  readonly remove: () => Promise<void>;
}

/**
 * Makes room for another one: removes those that were not used for longest until the share and the disk have room.
 *
 * @returns names of what was removed
 * @throws WrennError host_disk_full, and then nothing was removed
 */
export async function makeRoomForFetched(
  dir: string,
  neededBytes: number,
  copies: readonly FetchedCopy[],
): Promise<string[]> {
  const { blocks, bavail, bsize } = await statfs(dir);
  const held = copies.reduce((sum, { bytes }) => sum + bytes, 0);
  const overShare = held + neededBytes - blocks * bsize * MAX_SHARE;
  const overDisk = neededBytes + RESERVE_BYTES - bavail * bsize;
  const doomed: FetchedCopy[] = [];
  let missing = Math.max(overShare, overDisk);
  const idle = copies.filter(({ usedAtMs }) => Date.now() - usedAtMs > IN_USE_MS);
  for (const copy of idle.toSorted((a, b) => a.usedAtMs - b.usedAtMs)) {
    if (missing <= 0) break;
    doomed.push(copy);
    missing -= copy.bytes;
  }
  if (missing > 0) throw new WrennError('host_disk_full');
  for (const copy of doomed) await copy.remove();
  return doomed.map(({ name }) => name);
}
