import { chown, stat, truncate } from 'node:fs/promises';
import { WrennError } from '@wrenn/protocol/errors';
import { CommandFailedError, runCommand } from './command.ts';

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
 * @throws WrennError image_build_failed when the folder does not fit, host_disk_full.
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
    // The inode tables and the journal were written as zeros; a hole reads the same.
    await runCommand('fallocate', ['--dig-holes', imagePath], { signal, timeoutMs: 600_000 });
  } catch (error) {
    throw explain(error, sizeMb);
  }
  await truncate(imagePath, sizeMb * MIB);
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
  const text = error.lastLines.join(' ');
  if (/No space left on device/.test(text)) return new WrennError('host_disk_full', {}, { cause: error });
  const problem = /Could not allocate block|no free space|ext2fs_/i.test(text)
    ? `the files do not fit into ${sizeMb} MiB; make the image larger`
    : error.message;
  return new WrennError('image_build_failed', { step: 'file system', problem }, { cause: error });
}
