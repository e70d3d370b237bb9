import { randomBytes } from 'node:crypto';
import { link, open, rename, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';

export interface AtomicFileOptions {
  /** Permission bits of the file. */
  readonly mode?: number;
}

/**
 * Puts a whole file in place, or changes nothing: a reader, a crash and a power cut see the old content or the new
 * one. On return the content is on stable storage.
 */
export async function replaceFile(path: string, data: string | Uint8Array, options?: AtomicFileOptions): Promise<void> {
  await throughTemporary(path, data, options, rename);
}

/** As `replaceFile`, but only where nothing is in place yet: false, and nothing changed, where something is. */
export async function createFile(
  path: string,
  data: string | Uint8Array,
  options?: AtomicFileOptions,
): Promise<boolean> {
  return throughTemporary(path, data, options, async (temporary) => {
    try {
      await link(temporary, path);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw error;
    } finally {
      await unlink(temporary);
    }
  });
}

/** Makes the names in a folder durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function throughTemporary<T>(
  path: string,
  data: string | Uint8Array,
  options: AtomicFileOptions | undefined,
  putInPlace: (temporary: string, path: string) => Promise<T>,
): Promise<T> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.partial`;
  let result: T;
  try {
    const handle = await open(temporary, 'wx', options?.mode ?? 0o644);
    try {
      await handle.writeFile(data);
      await handle.sync();
    } finally {
      await handle.close();
    }
    result = await putInPlace(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => {
      // It may not have been made, or be gone already; the first error is the one to report.
    });
    throw error;
  }
  await syncDirectory(dirname(path));
  return result;
}
