import { chunkEnd, chunkFrom, type OutputChunk, type OutputStream } from './output-chunk.ts';
import { type SpillBudget, SpillFile } from './spill-file.ts';

export interface OutputLogOptions {
  /** Directory for output that has left memory; it needs no name there for longer than a moment. */
  readonly spillDirectory: string;
  /** Shared by all logs of this envd. */
  readonly spillBudget: SpillBudget;
  /** Called when the budget is used up; whether something was freed. */
  readonly reclaim: () => boolean;
  /** Bytes kept in memory. */
  readonly memoryBytes?: number;
  /** Size at which a spill file is full; the oldest file goes as a whole. */
  readonly spillFileBytes?: number;
  /** Spill files kept. */
  readonly spillFiles?: number;
  /** Told when attached readers fall behind (true) and when they have caught up (false). */
  readonly onPressure?: (behind: boolean) => void;
}

/** Largest run of one stream that grows in place; small writes of a program come together in it. */
const RUN_BYTES = 32 * 1024;
/** What a chunk costs in memory besides its bytes. */
const CHUNK_COST_BYTES = 128;

interface MutableChunk {
  readonly stream: OutputStream;
  readonly offset: number;
  data: Buffer;
  /** `data` is the used part of this. */
  storage: Buffer;
}

/**
 * The output of one process, kept in order: the newest in memory, older in files of bounded size, the oldest given up.
 * Readers pull, each at its own pace; while one is far behind, the log asks for a pause, so that nothing is ever dropped
 * for somebody who is attached.
 */
export class OutputLog {
  readonly #options: Required<OutputLogOptions>;
  readonly #readers = new Set<OutputReader>();
  #chunks: MutableChunk[] = [];
  #cost = 0;
  #files: SpillFile[] = [];
  #end = 0;
  #closed = false;
  #behind = false;
  #retired = false;
  readonly #waiters = new Set<() => void>();

  constructor(options: OutputLogOptions) {
    this.#options = {
      memoryBytes: 256 * 1024,
      spillFileBytes: 8 * 1024 * 1024,
      spillFiles: 8,
      onPressure: () => {},
      ...options,
    };
  }

  /** Bytes of output so far. */
  get end(): number {
    return this.#end;
  }

  /** Offset of the oldest byte that is kept. */
  get earliest(): number {
    return this.#files[0]?.start ?? this.#chunks[0]?.offset ?? this.#end;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Bytes on the disk. */
  get spilledBytes(): number {
    return this.#files.reduce((sum, file) => sum + file.bytes, 0);
  }

  append(stream: OutputStream, data: Buffer): void {
    if (data.length === 0) return;
    const tail = this.#chunks.at(-1);
    if (tail !== undefined && tail.stream === stream && tail.data.length + data.length <= RUN_BYTES) {
      this.#extend(tail, data);
    } else {
      this.#chunks.push({ stream, offset: this.#end, data, storage: data });
      this.#cost += data.length + CHUNK_COST_BYTES;
    }
    this.#end += data.length;
    if (this.#cost > this.#options.memoryBytes) this.#spill();
    this.#updatePressure();
    this.#wake();
  }

  /** Says that nothing comes any more. Readers get what is left, then the end. */
  close(): void {
    this.#closed = true;
    this.#wake();
  }

  /** Frees everything as soon as nobody is attached. */
  retire(): void {
    this.#retired = true;
    if (this.#readers.size > 0) return;
    for (const file of this.#files) this.#dropFile(file);
    this.#files = [];
    this.#chunks = [];
    this.#cost = 0;
  }

  /** A reader that starts at an offset, or at the oldest kept byte after it. */
  attach(offset: number): OutputReader {
    const reader = new OutputReader(this, Math.max(offset, this.earliest), () => {
      this.#readers.delete(reader);
      this.#updatePressure();
      if (this.#retired) this.retire();
    });
    this.#readers.add(reader);
    this.#updatePressure();
    return reader;
  }

  /** Who is attached. */
  readers(): OutputReader[] {
    return [...this.#readers];
  }

  /** Chunks from an offset on, for the log's own readers. Empty at the end. */
  read(offset: number): OutputChunk[] {
    if (offset >= this.#end) return [];
    const file = this.#files.find((candidate) => offset < candidate.end);
    if (file !== undefined) return file.read(offset);
    const first = findChunk(this.#chunks, offset);
    return this.#chunks.slice(first).map(({ stream, offset: start, data }) => ({ stream, offset: start, data }));
  }

  /** Resolves when there is something new or the process has ended, after the timeout, or when the signal says so. */
  changed(timeoutMs: number, signal: AbortSignal | undefined): Promise<'changed' | 'timeout' | 'aborted'> {
    return new Promise((resolve) => {
      const settle = (outcome: 'changed' | 'timeout' | 'aborted') => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        this.#waiters.delete(onChange);
        resolve(outcome);
      };
      const onChange = () => settle('changed');
      const onAbort = () => settle('aborted');
      const timer = setTimeout(() => settle('timeout'), timeoutMs);
      this.#waiters.add(onChange);
      if (signal?.aborted) onAbort();
      else signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Called by readers when they have moved on. */
  readerMoved(): void {
    if (this.#behind) this.#updatePressure();
  }

  #extend(tail: MutableChunk, data: Buffer): void {
    const length = tail.data.length + data.length;
    if (length > tail.storage.length) {
      // A new buffer, never the old one moved: readers may hold parts of the old one.
      const storage = Buffer.allocUnsafeSlow(Math.min(RUN_BYTES, Math.max(256, length * 2)));
      tail.data.copy(storage);
      this.#cost += storage.length - tail.storage.length;
      tail.storage = storage;
    }
    data.copy(tail.storage, tail.data.length);
    tail.data = tail.storage.subarray(0, length);
  }

  /** Moves the older half of what is in memory to the disk; where the disk has no room, gives it up. */
  #spill(): void {
    let count = 0;
    let cost = this.#cost;
    for (const chunk of this.#chunks) {
      if (cost <= this.#options.memoryBytes / 2) break;
      cost -= chunk.storage.length + CHUNK_COST_BYTES;
      count += 1;
    }
    const oldest = this.#chunks.slice(0, count);
    const mayGiveUp = this.#slowest() >= (this.#chunks[count]?.offset ?? this.#end);
    if (!this.#write(oldest)) {
      // Somebody attached still needs these bytes; the pause that is asked for bounds how much this can be.
      if (!mayGiveUp) return;
      // Kept output has no holes: what is older than the bytes that are given up goes too.
      for (const file of this.#files) this.#dropFile(file);
      this.#files = [];
    }
    this.#chunks = this.#chunks.slice(count);
    this.#cost = cost;
  }

  #write(chunks: readonly MutableChunk[]): boolean {
    const first = chunks[0];
    if (first === undefined) return true;
    try {
      let file = this.#files.at(-1);
      if (file === undefined || file.bytes >= this.#options.spillFileBytes) {
        file = this.#openFile(first.offset);
        if (file === undefined) return false;
      }
      file.append(chunks);
      return true;
    } catch {
      // The guest's disk is full or read-only: output goes on, and readers see from the offsets what is gone.
      return false;
    }
  }

  #openFile(start: number): SpillFile | undefined {
    const { spillFileBytes, spillFiles, spillBudget, reclaim, spillDirectory } = this.#options;
    const dropOldest = () => {
      const oldest = this.#files[0];
      if (oldest === undefined || this.#slowest() < oldest.end) return false;
      this.#files.shift();
      this.#dropFile(oldest);
      return true;
    };
    if (this.#files.length >= spillFiles) dropOldest();
    while (!spillBudget.reserve(spillFileBytes)) {
      if (!reclaim() && !dropOldest()) return undefined;
    }
    try {
      const file = new SpillFile(spillDirectory, start);
      this.#files.push(file);
      return file;
    } catch (error) {
      spillBudget.release(spillFileBytes);
      throw error;
    }
  }

  #dropFile(file: SpillFile): void {
    file.close();
    this.#options.spillBudget.release(this.#options.spillFileBytes);
  }

  #slowest(): number {
    let slowest = Number.POSITIVE_INFINITY;
    for (const reader of this.#readers) slowest = Math.min(slowest, reader.offset);
    return slowest;
  }

  #updatePressure(): void {
    const lag = this.#end - Math.min(this.#slowest(), this.#end);
    const behind = this.#behind ? lag > this.#options.memoryBytes / 4 : lag > this.#options.memoryBytes;
    if (behind === this.#behind) return;
    this.#behind = behind;
    this.#options.onPressure(behind);
  }

  #wake(): void {
    for (const waiter of [...this.#waiters]) waiter();
  }
}

/** One attached reader. Whoever attaches it closes it. */
export class OutputReader {
  readonly #log: OutputLog;
  readonly #onClose: () => void;
  /** Offset of the first byte that this reader gets. */
  readonly start: number;
  /** Unix time in milliseconds. */
  readonly attachedAt = Date.now();
  #offset: number;
  #ahead: OutputChunk[] = [];

  constructor(log: OutputLog, offset: number, onClose: () => void) {
    this.#log = log;
    this.#offset = offset;
    this.start = offset;
    this.#onClose = onClose;
  }

  /** Offset of the next byte. */
  get offset(): number {
    return this.#offset;
  }

  /** The next chunk; `end` after the last one of an ended process; undefined while there is nothing new. */
  next(): OutputChunk | 'end' | undefined {
    return this.#take() ?? (this.#log.closed ? 'end' : undefined);
  }

  /** See OutputLog.changed. */
  changed(timeoutMs: number, signal: AbortSignal | undefined): Promise<'changed' | 'timeout' | 'aborted'> {
    return this.#log.changed(timeoutMs, signal);
  }

  close(): void {
    this.#ahead = [];
    this.#onClose();
  }

  #take(): OutputChunk | undefined {
    if (this.#ahead.length === 0) this.#ahead = this.#log.read(this.#offset);
    const next = this.#ahead.shift();
    if (next === undefined) return undefined;
    const chunk = chunkFrom(next, this.#offset);
    this.#offset = chunkEnd(chunk);
    this.#log.readerMoved();
    return chunk;
  }
}

/** Index of the chunk that holds an offset. */
function findChunk(chunks: readonly { offset: number }[], offset: number): number {
  let low = 0;
  let high = chunks.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((chunks[middle]?.offset ?? 0) <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}
