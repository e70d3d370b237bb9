import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { recordActivity } from './lifetime-store.ts';

/** A use must be in the database after this time, so that every other control plane sees it. */
const FLUSH_INTERVAL_MS = 1000;

/** What somebody does with a capsule for as long as it lasts. */
export interface CapsuleUse {
  readonly kind: 'stream';
  /** For a person: which command, which file. */
  readonly detail: string;
}

export interface OpenUse extends CapsuleUse {
  readonly since: Date;
}

const A_REQUEST: CapsuleUse = { kind: 'stream', detail: 'a request' };

/**
 * Notes which capsules are in use. Writes are gathered, so that a request does not wait for one; a use that could not
 * be written is written at the next attempt.
 */
export class CapsuleActivity implements AsyncDisposable {
  readonly #db: Db;
  readonly #log: Logger;
  readonly #open = new Map<string, Set<OpenUse>>();
  /** Used since the last write. */
  #touched = new Set<string>();
  /** In the write that is under way. */
  #writing = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(db: Db, log: Logger) {
    this.#db = db;
    this.#log = log;
  }

  /** Something that uses a capsule has begun and keeps it awake until it is disposed. */
  begin(id: string, use: CapsuleUse = A_REQUEST): Disposable {
    const open: OpenUse = { ...use, since: new Date() };
    const uses = this.#open.get(id) ?? new Set();
    this.#open.set(id, uses.add(open));
    this.touch(id);
    return {
      [Symbol.dispose]: () => {
        if (!uses.delete(open)) return;
        if (uses.size === 0 && this.#open.get(id) === uses) this.#open.delete(id);
        this.touch(id);
      },
    };
  }

  /** A capsule was used at this moment: bytes went through a terminal or a port, or somebody pinged it. */
  touch(id: string): void {
    this.#touched.add(id);
    this.#schedule();
  }

  /** Whether a capsule is in use here, or was so recently that the database does not yet know. */
  isInUse(id: string): boolean {
    return this.#open.has(id) || this.#touched.has(id) || this.#writing.has(id);
  }

  /** What goes on through this control plane, oldest first. */
  uses(id: string): OpenUse[] {
    return [...(this.#open.get(id) ?? [])];
  }

  #schedule(): void {
    if (this.#closed) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.#flush();
    }, FLUSH_INTERVAL_MS).unref();
  }

  #flush(): Promise<void> {
    this.#flushing = this.#flushing.then(() => this.#write());
    return this.#flushing;
  }

  async #write(): Promise<void> {
    this.#writing = this.#touched;
    this.#touched = new Set();
    try {
      await recordActivity(this.#db, [...this.#writing], [...this.#open.keys()]);
    } catch (err) {
      this.#log.warn({ err }, 'could not record which capsules are in use');
      for (const id of this.#writing) this.#touched.add(id);
    }
    this.#writing = new Set();
    // What is open is renewed as long as it is.
    if (this.#open.size > 0 || this.#touched.size > 0) this.#schedule();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#flush();
  }
}
