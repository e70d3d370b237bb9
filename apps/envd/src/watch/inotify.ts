import { closeSync, readSync } from 'node:fs';
import { errnoOf } from '../errors.ts';
import { inotifyAddWatch, inotifyInit, inotifyRemoveWatch, signalWhenReadable } from '../native/libc.ts';

/** Bits of inotify(7). */
export const IN = {
  MODIFY: 0x2,
  ATTRIB: 0x4,
  MOVED_FROM: 0x40,
  MOVED_TO: 0x80,
  CREATE: 0x100,
  DELETE: 0x200,
  DELETE_SELF: 0x400,
  MOVE_SELF: 0x800,
  UNMOUNT: 0x2000,
  Q_OVERFLOW: 0x4000,
  IGNORED: 0x8000,
  ONLYDIR: 0x1000000,
  ISDIR: 0x40000000,
} as const;

const WATCHED =
  IN.MODIFY |
  IN.ATTRIB |
  IN.MOVED_FROM |
  IN.MOVED_TO |
  IN.CREATE |
  IN.DELETE |
  IN.DELETE_SELF |
  IN.MOVE_SELF |
  IN.ONLYDIR;

export interface InotifyEvent {
  readonly watch: number;
  readonly mask: number;
  /** The same in both halves of a move. */
  readonly cookie: number;
  /** Empty for events of the watched directory itself. */
  readonly name: string;
}

const HEADER_BYTES = 16;
const READ_BYTES = 64 * 1024;

/**
 * The process's only inotify instance. The kernel says by SIGIO that events wait; a thread that sits in read() would hold
 * up the process's exit, and Node cannot poll a descriptor of this kind.
 *
 * @param onEvents gets everything that waited, in order
 * @param onEmpty is called when nothing waits: whatever happened before is told
 */
export class Inotify {
  readonly #fd: number;
  readonly #onEvents: (events: InotifyEvent[]) => void;
  readonly #onEmpty: () => void;
  readonly #buffer = Buffer.allocUnsafe(READ_BYTES);
  #closed = false;

  constructor(onEvents: (events: InotifyEvent[]) => void, onEmpty: () => void) {
    this.#onEvents = onEvents;
    this.#onEmpty = onEmpty;
    this.#fd = inotifyInit();
    listenForSignals();
    open.add(this);
    signalWhenReadable(this.#fd);
  }

  /** Watches a directory; the same one gives the same number. */
  add(path: string): number {
    return inotifyAddWatch(this.#fd, path, WATCHED);
  }

  remove(watch: number): void {
    try {
      inotifyRemoveWatch(this.#fd, watch);
    } catch (error) {
      // The directory has gone, and its watch with it.
      if (errnoOf(error) !== 'EINVAL') throw error;
    }
  }

  /** Takes everything that waits. */
  drain(): void {
    if (this.#closed) return;
    const events = this.#read();
    if (events.length === 0) {
      this.#onEmpty();
      return;
    }
    this.#onEvents(events);
    // Others may have come meanwhile. Not at once: programs that write all the time would hold up everything else.
    setImmediate(() => this.drain());
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    open.delete(this);
    closeSync(this.#fd);
  }

  #read(): InotifyEvent[] {
    const events: InotifyEvent[] = [];
    for (;;) {
      let length: number;
      try {
        length = readSync(this.#fd, this.#buffer);
      } catch (error) {
        if (errnoOf(error) === 'EAGAIN') return events;
        if (errnoOf(error) === 'EINTR') continue;
        throw error;
      }
      for (let at = 0; at < length; ) {
        const nameLength = this.#buffer.readUInt32LE(at + 12);
        const name = this.#buffer.toString('utf8', at + HEADER_BYTES, at + HEADER_BYTES + nameLength);
        events.push({
          watch: this.#buffer.readInt32LE(at),
          mask: this.#buffer.readUInt32LE(at + 4),
          cookie: this.#buffer.readUInt32LE(at + 8),
          // Padded with zeros to a round length.
          name: name.slice(0, indexOrEnd(name)),
        });
        at += HEADER_BYTES + nameLength;
      }
    }
  }
}

const open = new Set<Inotify>();
let listening = false;

/** Before the kernel may send the first signal, and for good: one that comes when nobody listens ends the process. */
function listenForSignals(): void {
  if (listening) return;
  listening = true;
  process.on('SIGIO', () => {
    for (const inotify of open) inotify.drain();
  });
}

function indexOrEnd(name: string): number {
  const end = name.indexOf('\0');
  return end === -1 ? name.length : end;
}
