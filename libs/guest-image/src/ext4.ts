import { chown, stat, truncate } from 'node:fs/promises';
import { WrennError } from '@wrenn/protocol/errors';
import { CommandFailedError, runCommand } from './command.ts';
import { dataExtents } from './sparse-hash.ts';

export const MIB = 1024 * 1024;
/** 5 GiB; the file is sparse and holds only what the guest has. */
export const DEFAULT_ROOTFS_SIZE_MB = 5 * 1024;

interface Ext4Options {
  readonly rootDir: string;
  /** Made by this call. */
  readonly imagePath: string;
  readonly sizeMb: number;
  /** Hex digits of which the file system's UUID and directory hash seed are made, so equal inputs give equal ones. */
  readonly seed: string;
  readonly signal: AbortSignal;
}

/**
 * Makes an ext4 file system out of a folder, with its owners, modes, links and device nodes. Nothing is mounted.
 *
 * Everything is initialised here (no lazy inode tables), so a guest's first boot does not write in the background, and
 * the journal is small, because every capsule keeps its own copy of what it writes there.
 *
 * @throws WrennError image_build_failed when the folder does not fit.
 */
export async function makeExt4(options: Ext4Options): Promise<void> {
  const { imagePath, rootDir, sizeMb, signal } = options;
  const uuid = uuidFrom(options.seed);
  // The folder becomes the root of the file system.
  await chown(rootDir, 0, 0);
  const args = [
    '-q',
    ...['-t', 'ext4', '-b', '4096', '-m', '0', '-I', '256', '-L', 'wrenn', '-U', uuid, '-J', 'size=32'],
    ...['-E', `hash_seed=${uuid},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0`],
    ...['-d', rootDir, imagePath, `${sizeMb}M`],
  ];
  try {
    await runCommand('mke2fs', args, { signal, timeoutMs: 600_000 });
  } catch (error) {
    throw explain(error, sizeMb);
  }
  await truncate(imagePath, sizeMb * MIB);
  await releaseZeros(imagePath, sizeMb * MIB, signal);
}

/** Gives back the blocks of inode tables and journal, which are all zeros or only reserved; a hole reads the same. */
async function releaseZeros(path: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
  const fallocate = (...args: string[]) => runCommand('fallocate', [...args, path], { signal, timeoutMs: 600_000 });
  await fallocate('--dig-holes');
  let end = 0;
  for (const { start, length } of [...(await dataExtents(path, signal)), { start: sizeBytes, length: 0 }]) {
    if (start > end) await fallocate('--punch-hole', `--offset=${end}`, `--length=${start - end}`);
    end = start + length;
  }
}

/** Bytes that a file takes on the disk, holes apart. */
export async function allocatedBytes(path: string): Promise<number> {
  return (await stat(path)).blocks * 512;
}

function uuidFrom(seed: string): string {
  const digits = `${seed.slice(0, 12)}8${seed.slice(13, 16)}a${seed.slice(17, 32)}`;
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

function explain(error: unknown, sizeMb: number): unknown {
  if (!(error instanceof CommandFailedError)) return error;
  if (!/Could not allocate|too small|no free space/i.test(error.lastLines.join(' '))) return error;
  const problem = `the files do not fit into ${sizeMb} MiB; make the image larger`;
  return new WrennError('image_build_failed', { step: 'file system', problem }, { cause: error });
}
