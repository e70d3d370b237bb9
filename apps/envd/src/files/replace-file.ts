import { randomBytes } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { type FileHandle, lstat, open, readlink, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { WrennError } from '@wrenn/protocol/errors';
import { errnoOf, fileError } from '../errors.ts';
import { replaceMetadata } from '../filesystem/metadata.ts';
import type { Account } from '../users/accounts.ts';
import { ensureDirectory } from '../users/paths.ts';

/** An upload lies beside its destination under one of these names until it is whole; watches and lists pass it over. */
const NEW_PREFIX = '.wrenn-upload-new-';
const REPLACING_PREFIX = '.wrenn-upload-old-';

export function isUploadName(name: string): boolean {
  return name.startsWith(NEW_PREFIX) || name.startsWith(REPLACING_PREFIX);
}

/** Whether the upload of that name takes the place of a file that was there. */
export function uploadReplaces(name: string): boolean {
  return name.startsWith(REPLACING_PREFIX);
}

const DEFAULT_MODE = 0o666;
const MAX_LINKS = 40;
const COPY_BYTES = 1024 * 1024;

/**
 * Writes a whole file, or nothing: a reader sees the old content or all of the new, and when the content breaks off the
 * old file is as it was. Missing parent directories are created. The file belongs to the account; mode and name links of
 * the old one stay.
 *
 * @param metadata replaces what clients attached to the old file
 */
export async function replaceFile(
  path: string,
  content: AsyncIterable<Uint8Array>,
  account: Account,
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  await ensureDirectory(dirname(path), account);
  let brokenOff: { readonly error: unknown } | undefined;
  const watched = (async function* () {
    try {
      yield* content;
    } catch (error) {
      brokenOff = { error };
      throw error;
    }
  })();
  try {
    const target = await followLinks(path);
    const old = await statIfThere(target);
    if (old?.isDirectory()) {
      throw new WrennError('wrong_file_type', { path, actual: 'a directory', expected: 'a file' });
    }
    if (old && !old.isFile()) await writeInPlace(target, watched);
    else await writeBeside(target, old, watched, account, metadata);
  } catch (error) {
    // Not the file's error but its sender's.
    if (brokenOff !== undefined) throw brokenOff.error;
    throw fileError(error, path, 'write');
  }
}

async function writeBeside(
  target: string,
  old: Stats | undefined,
  content: AsyncIterable<Uint8Array>,
  account: Account,
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const temporary = join(dirname(target), `${old ? REPLACING_PREFIX : NEW_PREFIX}${randomBytes(8).toString('hex')}`);
  let file: FileHandle;
  try {
    file = await open(temporary, 'wx+', DEFAULT_MODE);
  } catch (error) {
    // On /proc and /sys files can be written but none be made.
    if (old && NO_NEW_FILES.has(errnoOf(error) ?? '')) return await writeInPlace(target, content);
    throw error;
  }
  try {
    try {
      if (process.getuid?.() === 0) await file.chown(account.uid, account.gid);
      if (old) await file.chmod(old.mode & 0o7777);
      await writeAll(file, content);
      replaceMetadata(file.fd, metadata);
      try {
        await rename(temporary, target);
        return;
      } catch (error) {
        // A file that is itself a mount point cannot be replaced, only be written.
        if (errnoOf(error) !== 'EBUSY') throw error;
        await writeInPlace(target, readAll(file));
      }
    } finally {
      await file.close();
    }
    await unlink(temporary);
  } catch (error) {
    await unlinkIfThere(temporary);
    throw error;
  }
}

const NO_NEW_FILES = new Set(['ENOENT', 'EACCES', 'EPERM', 'EROFS', 'EINVAL', 'ENOTSUP']);

async function writeInPlace(target: string, content: AsyncIterable<Uint8Array>): Promise<void> {
  // Non-blocking, because a FIFO that nobody reads would hold the request for ever.
  const file = await open(target, constants.O_WRONLY | constants.O_TRUNC | constants.O_NONBLOCK);
  try {
    await writeAll(file, content);
  } finally {
    await file.close();
  }
}

async function writeAll(file: FileHandle, content: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const chunk of content) {
    for (let written = 0; written < chunk.length; ) {
      written += (await file.write(chunk, written, chunk.length - written)).bytesWritten;
    }
  }
}

async function* readAll(file: FileHandle): AsyncGenerator<Uint8Array> {
  for (let position = 0; ; ) {
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(COPY_BYTES), 0, COPY_BYTES, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

/** The file that a path means in the end; for links that lead nowhere, what they would create. */
async function followLinks(path: string): Promise<string> {
  let current = path;
  for (let links = 0; links < MAX_LINKS; links++) {
    try {
      if (!(await lstat(current)).isSymbolicLink()) return current;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return current;
      throw error;
    }
    current = resolve(dirname(current), await readlink(current));
  }
  throw new WrennError('invalid_request', { problem: `${basename(path)} is a loop of symbolic links` });
}

async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

async function unlinkIfThere(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}
