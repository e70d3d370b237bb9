import { constants, type FSWatcher, watch } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';

/** A log may grow a little over its limit between two looks at it. */
const LOOK_INTERVAL_MS = 1000;

/**
 * Keeps a file that another process appends to below a limit: what is over it is cut off at the front. The writer must
 * have opened the file with O_APPEND, so that it goes on at the new end.
 */
export class BoundedLog {
  readonly #path: string;
  readonly #limitBytes: number;
  #watcher: FSWatcher | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  private constructor(path: string, limitBytes: number) {
    this.#path = path;
    this.#limitBytes = limitBytes;
  }

  /** Cuts the file now if need be, then keeps watch until `close`. */
  static async watch(path: string, limitBytes: number): Promise<BoundedLog> {
    const log = new BoundedLog(path, limitBytes);
    await log.#look();
    return log;
  }

  close(): void {
    this.#closed = true;
    this.#watcher?.close();
    clearTimeout(this.#timer);
  }

  /** Watches before it cuts, so that what is appended meanwhile is seen. The cut itself makes it look once more. */
  async #look(): Promise<void> {
    const changed = Promise.withResolvers<void>();
    try {
      const watcher = watch(this.#path, { persistent: false }, () => changed.resolve());
      watcher.on('error', () => watcher.close());
      this.#watcher = watcher;
      await trimLog(this.#path, this.#limitBytes);
    } catch (error) {
      this.close();
      throw error;
    }
    void changed.promise.then(() => this.#rest());
  }

  /** A guest that prints for ever makes an event a byte; so look once, and not again for a while. */
  #rest(): void {
    this.#watcher?.close();
    if (this.#closed) return;
    this.#timer = setTimeout(() => {
      // The file is gone, and with it what could grow.
      this.#look().catch(() => undefined);
    }, LOOK_INTERVAL_MS);
    this.#timer.unref();
  }
}

/** Where the file is over `limitBytes`, keeps its last half of that. What is appended meanwhile may be lost. */
export async function trimLog(path: string, limitBytes: number): Promise<void> {
  await using file = await open(path, constants.O_RDWR | constants.O_NOFOLLOW);
  const { size } = await file.stat();
  if (size <= limitBytes) return;
  const kept = await readTail(file, size, limitBytes >> 1);
  await file.write(kept, 0, kept.length, 0);
  await file.truncate(kept.length);
}

/** The last bytes of a log as text; empty where there is no such file. */
export async function logTail(path: string, maxBytes: number): Promise<string> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    return (await readTail(file, (await file.stat()).size, maxBytes)).toString('utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

async function readTail(file: FileHandle, sizeBytes: number, maxBytes: number): Promise<Buffer> {
  const length = Math.min(sizeBytes, maxBytes);
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await file.read(buffer, 0, length, sizeBytes - length);
  return buffer.subarray(0, bytesRead);
}
