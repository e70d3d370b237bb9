import { type BigIntStats, constants } from 'node:fs';
import { lstat, realpath, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { type EntryInfo, EntryInfoSchema, FileType } from '@wrenn/protocol/gen/filesystem/filesystem_pb';
import { fileError } from '../errors.ts';
import { groupName, userName } from '../users/accounts.ts';
import { readMetadata } from './metadata.ts';

/** What E2B tells of an entry: a link's type and mode are its target's, everything else is the entry's own. */
export async function entryInfo(path: string): Promise<EntryInfo> {
  try {
    const own = await lstat(path, { bigint: true });
    const link = own.isSymbolicLink() ? await followLink(path) : undefined;
    const typed = link === undefined ? own : link.stats;
    return create(EntryInfoSchema, {
      name: basename(path) || '/',
      type: typed === undefined ? FileType.UNSPECIFIED : fileType(typed),
      path,
      size: own.size,
      mode: typed === undefined ? 0 : Number(typed.mode & 0o777n),
      permissions: permissionString(Number(own.mode)),
      owner: userName(Number(own.uid)),
      group: groupName(Number(own.gid)),
      modifiedTime: {
        seconds: floorDivide(own.mtimeNs, 1_000_000_000n),
        nanos: Number(own.mtimeNs - floorDivide(own.mtimeNs, 1_000_000_000n) * 1_000_000_000n),
      },
      ...(link === undefined ? {} : { symlinkTarget: link.target }),
      metadata: readMetadata(path),
    });
  } catch (error) {
    throw fileError(error, path, 'look up');
  }
}

/** The entry, or undefined where it has gone. */
export async function entryInfoIfThere(path: string): Promise<EntryInfo | undefined> {
  try {
    return await entryInfo(path);
  } catch (error) {
    if (fileError(error, path, 'look up').code === 'path_not_found') return undefined;
    throw error;
  }
}

/** A link that leads nowhere is its own target, and of no type. */
async function followLink(path: string): Promise<{ target: string; stats: BigIntStats | undefined }> {
  try {
    return { target: await realpath(path), stats: await stat(path, { bigint: true }) };
  } catch {
    return { target: path, stats: undefined };
  }
}

function fileType(stats: BigIntStats): FileType {
  if (stats.isFile()) return FileType.FILE;
  if (stats.isDirectory()) return FileType.DIRECTORY;
  return FileType.UNSPECIFIED;
}

const KIND_LETTERS = new Map([
  [constants.S_IFDIR, 'd'],
  [constants.S_IFLNK, 'L'],
  [constants.S_IFBLK, 'D'],
  [constants.S_IFCHR, 'Dc'],
  [constants.S_IFIFO, 'p'],
  [constants.S_IFSOCK, 'S'],
]);

/** The mode as Go writes it, which E2B's clients see: letters of the kind and of set-uid, set-gid and sticky, then rwx. */
export function permissionString(mode: number): string {
  const kind = KIND_LETTERS.get(mode & constants.S_IFMT) ?? '';
  const special = `${mode & 0o4000 ? 'u' : ''}${mode & 0o2000 ? 'g' : ''}`;
  const sticky = mode & 0o1000 ? 't' : '';
  // Go's order is d a l T L D p S u g c t; only a device's "c" comes after the set-id letters.
  const letters = kind === 'Dc' ? `D${special}c${sticky}` : `${kind}${special}${sticky}`;
  const bits = [...'rwxrwxrwx'].map((letter, index) => (mode & (0o400 >> index) ? letter : '-')).join('');
  return (letters || '-') + bits;
}

function floorDivide(value: bigint, by: bigint): bigint {
  const quotient = value / by;
  return value < 0n && quotient * by !== value ? quotient - 1n : quotient;
}
