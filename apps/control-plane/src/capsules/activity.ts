import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { touchCapsules } from './capsule-store.ts';

const FLUSH_INTERVAL_MS = 1000;
/** How often a capsule with a long request counts as used again. */
const RENEW_INTERVAL_MS = 15_000;

/**
 * Notes which capsules are in use. Writes are gathered, so that a request does not wait for one.
 */
export class CapsuleActivity implements AsyncDisposable {
  readonly #db: Db;
  readonly #log: Logger;
  readonly #dirty = new Set<string>();
  readonly #open = new Map<string, number>();
  readonly #renewal: NodeJS.Timeout;
  #timer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> = Promise.resolve();

  constructor(db: Db, log: Logger) {
    this.#db = db;
    this.#log = log;
    this.#renewal = setInterval(() => {
      for (const id of this.#open.keys()) this.#note(id);
    }, RENEW_INTERVAL_MS);
    this.#renewal.unref();
  }

  /** A request that uses a capsule has begun; dispose it at its end. */
  begin(id: string): Disposable {
    this.#open.set(id, (this.#open.get(id) ?? 0) + 1);
    this.#note(id);
    let ended = false;
    return {
      [Symbol.dispose]: () => {
        if (ended) return;
        ended = true;
        const left = (this.#open.get(id) ?? 1) - 1;
        if (left > 0) this.#open.set(id, left);
        else this.#open.delete(id);
        this.#note(id);
      },
    };
  }

  isInUse(id: string): boolean {
    return this.#open.has(id);
  }

  #note(id: string): void {
    this.#dirty.add(id);
    this.#timer ??= setTimeout(() => {
      this.#flush().catch((err: unknown) => this.#log.warn({ err }, 'could not record which capsules are in use'));
    }, FLUSH_INTERVAL_MS);
  }

  #flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const ids = [...this.#dirty];
    this.#dirty.clear();
    this.#flushing = this.#flushing.catch(() => undefined).then(() => touchCapsules(this.#db, ids));
    return this.#flushing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#renewal);
    await this.#flush();
  }
}
