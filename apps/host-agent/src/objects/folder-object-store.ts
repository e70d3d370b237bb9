import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, rename, rmdir, stat, unlink } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { syncDirectory } from '@wrenn/config/atomic-file';
import { isRunning, processKey } from '@wrenn/hypervisor/vm-process';
import { breakingOnAbort } from './breaking-on-abort.ts';
import { type ByteRange, checkKey, type ObjectStore, storeFailed } from './object-store.ts';

/** Keys begin with no dot, so this folder holds no object. */
const UNFINISHED = '.unfinished';
/** Unfinished objects of other machines, whose processes cannot be asked for. */
const ABANDONED_MS = 86_400_000;
const READ_BYTES = 1024 * 1024;
/** A folder that a delete found empty may vanish between being made and being used. */
const ATTEMPTS = 10;

/** Objects as files below a folder, which may be a network file system that several hosts share. */
export class FolderObjectStore implements ObjectStore {
  readonly #root: string;
  #tidied: Promise<void> | undefined;

  constructor(root: string) {
    this.#root = root;
  }

  async put(
    key: string,
    body: Readable | Uint8Array,
    sizeBytes: number | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const path = this.#path(key);
    signal.throwIfAborted();
    const temporary = join(await this.#unfinishedFolder(), unfinishedName());
    try {
      const written = await this.#write(temporary, body, signal);
      if (sizeBytes !== undefined && written !== sizeBytes) {
        throw new TypeError(`An object of ${sizeBytes} bytes was given ${written}`);
      }
      await onDisk(this.#putInPlace(temporary, path));
    } catch (error) {
      await unlink(temporary).catch((problem: NodeJS.ErrnoException) => {
        // What is left is removed at the next start; the first error is the one to report.
        if (problem.code !== 'ENOENT') throw new AggregateError([error, problem], 'An unfinished object stays');
      });
      signal.throwIfAborted();
      throw error;
    }
  }

  async get(key: string, range: ByteRange | undefined, signal: AbortSignal): Promise<Readable> {
    signal.throwIfAborted();
    const handle = await onDisk(open(this.#path(key)));
    if (range && range.end <= range.start) {
      await handle.close();
      return Readable.from([]);
    }
    const part = range ? { start: range.start, end: range.end - 1 } : {};
    return createReadStream('', { fd: handle, highWaterMark: READ_BYTES, ...part });
  }

  async head(key: string, signal: AbortSignal): Promise<{ readonly sizeBytes: number } | undefined> {
    signal.throwIfAborted();
    try {
      const found = await stat(this.#path(key));
      return found.isFile() ? { sizeBytes: found.size } : undefined;
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw folderFailed(error);
    }
  }

  async delete(keys: readonly string[], signal: AbortSignal): Promise<void> {
    for (const key of keys) {
      signal.throwIfAborted();
      await onDisk(this.#delete(this.#path(key)));
    }
  }

  async *list(prefix: string, signal: AbortSignal): AsyncIterable<string> {
    const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    if (folder !== '') checkKey(folder.slice(0, -1));
    for await (const key of this.#keysIn(folder, signal)) if (key.startsWith(prefix)) yield key;
  }

  #path(key: string): string {
    return join(this.#root, checkKey(key));
  }

  async #write(path: string, body: Readable | Uint8Array, signal: AbortSignal): Promise<number> {
    const parts = body instanceof Uint8Array ? [body] : breakingOnAbort(body, signal);
    await using handle = await onDisk(open(path, 'wx', 0o600));
    let written = 0;
    for await (const part of parts as AsyncIterable<Uint8Array>) {
      for (let done = 0; done < part.length; ) {
        signal.throwIfAborted();
        done += (await onDisk(handle.write(part, done))).bytesWritten;
      }
      written += part.length;
    }
    await onDisk(handle.sync());
    return written;
  }

  async #putInPlace(temporary: string, path: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await makeFolder(dirname(path));
        await rename(temporary, path);
        break;
      } catch (error) {
        if (!isMissing(error) || attempt === ATTEMPTS) throw error;
      }
    }
    await syncDirectory(dirname(path));
  }

  async #delete(path: string): Promise<void> {
    try {
      await unlink(path);
    } catch (error) {
      if (!isMissing(error)) throw error;
      return;
    }
    for (let folder = dirname(path); ; folder = dirname(folder)) {
      try {
        await syncDirectory(folder);
        if (folder === this.#root) return;
        await rmdir(folder);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        // Still in use, or another delete was quicker.
        if (code === 'ENOTEMPTY' || code === 'EEXIST' || code === 'ENOENT') return;
        throw error;
      }
    }
  }

  async *#keysIn(folder: string, signal: AbortSignal): AsyncIterable<string> {
    signal.throwIfAborted();
    const entries = await readdir(join(this.#root, folder), { withFileTypes: true }).catch((error: unknown) => {
      if (isMissing(error)) return [];
      throw folderFailed(error);
    });
    for (const entry of entries) {
      if (entry.name.startsWith('.')) continue;
      const key = `${folder}${entry.name}`;
      if (entry.isDirectory()) yield* this.#keysIn(`${key}/`, signal);
      else yield key;
    }
  }

  /** Tidied once, before the first put. */
  async #unfinishedFolder(): Promise<string> {
    const folder = join(this.#root, UNFINISHED);
    await onDisk(makeFolder(folder));
    this.#tidied ??= onDisk(tidyUnfinished(folder));
    try {
      await this.#tidied;
    } catch (error) {
      this.#tidied = undefined;
      throw error;
    }
    return folder;
  }
}

/** Host, pid and start time of the writer tell whether it still writes. */
function unfinishedName(): string {
  const own = processKey(process.pid);
  return `${hostname()}~${process.pid}~${own?.startTicks ?? '0'}~${randomBytes(6).toString('hex')}`;
}

async function tidyUnfinished(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    const [host, pid, startTicks = ''] = name.split('~');
    const path = join(folder, name);
    const abandoned =
      host === hostname()
        ? !isRunning({ pid: Number(pid), startTicks })
        : Date.now() - (await modifiedAt(path)) > ABANDONED_MS;
    if (abandoned) {
      await unlink(path).catch((error: unknown) => {
        if (!isMissing(error)) throw error;
      });
    }
  }
}

/** Makes a folder with those above it, so that all of them outlast a power cut. */
async function makeFolder(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true, mode: 0o700 });
  if (first === undefined) return;
  for (let folder = path; folder !== dirname(first); folder = dirname(folder)) await syncDirectory(dirname(folder));
}

/** Milliseconds since 1970; now, for a file that is gone. */
async function modifiedAt(path: string): Promise<number> {
  try {
    return (await stat(path)).mtimeMs;
  } catch (error) {
    if (isMissing(error)) return Date.now();
    throw error;
  }
}

async function onDisk<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw folderFailed(error);
  }
}

function isMissing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

function folderFailed(error: unknown) {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return storeFailed('something that was stored in it is not there', error);
    case 'ENOSPC':
    case 'EDQUOT':
      return storeFailed('it is full', error);
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return storeFailed('its folder cannot be written', error);
    default:
      return storeFailed('its folder cannot be used', error);
  }
}
