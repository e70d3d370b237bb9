import { setTimeout as delay } from 'node:timers/promises';
import { DrizzleQueryError } from 'drizzle-orm/errors';
import { DatabaseError } from 'pg';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { type AuditEntry, insertEntries, type StampedEntry, stamp } from './record.ts';
import type { UnwrittenEntries } from './unwritten.ts';

/** Entries of one INSERT. */
const BATCH = 250;
/** Entries that may wait for the database; above that nothing begins that would make more. */
const QUEUE_LIMIT = 20_000;
/** How long an entry waits for others to share a commit with. */
const LINGER_MS = 100;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 2000;
/** How long the end of this program waits for the database. */
const CLOSE_MS = 5000;

export interface TrailOptions {
  readonly db: Db;
  readonly unwritten: UnwrittenEntries;
  readonly log: Logger;
  readonly queueLimit?: number;
  readonly closeMs?: number;
}

/** Who can be told of an entry that no transaction writes. */
export interface AuditSink {
  /** Writes it soon, however long the database is away. */
  add(entry: AuditEntry): void;
  /** Resolves when it is written, or the time is over: then it still will be. */
  write(entry: AuditEntry, waitMs: number): Promise<void>;
  /** So much waits that whatever would make more is to be refused. */
  readonly isFull: boolean;
}

/**
 * Writes entries of requests in batches, in the order in which they came, one batch after the other. What the database
 * does not take before the end of this program goes to a file, and from there into the log at the next start.
 */
export class AuditTrail implements AuditSink, AsyncDisposable {
  readonly #options: TrailOptions;
  readonly #queueLimit: number;
  readonly #queue: StampedEntry[] = [];
  readonly #closing = new AbortController();
  #written = new Map<string, () => void>();
  #pumping: Promise<void> | undefined;
  #linger: NodeJS.Timeout | undefined;

  constructor(options: TrailOptions) {
    this.#options = options;
    this.#queueLimit = options.queueLimit ?? QUEUE_LIMIT;
  }

  get isFull(): boolean {
    return this.#queue.length >= this.#queueLimit;
  }

  /** Entries that are not written yet. */
  get waiting(): number {
    return this.#queue.length;
  }

  add(entry: AuditEntry): void {
    this.#push(stamp(entry));
    this.#linger ??= setTimeout(() => this.#pump(), LINGER_MS).unref();
  }

  async write(entry: AuditEntry, waitMs: number): Promise<void> {
    const stamped = stamp(entry);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#written.set(stamped.id, resolve);
    this.#push(stamped);
    const timer = setTimeout(() => {
      this.#options.log.error({ entry: stamped.id }, 'an audit entry is not written yet; its request is answered');
      resolve();
    }, waitMs);
    this.#pump();
    await promise;
    clearTimeout(timer);
    this.#written.delete(stamped.id);
  }

  #push(entry: StampedEntry): void {
    // A socket that closed after everything else.
    if (this.#closing.signal.aborted) this.#options.unwritten.keep([entry]);
    else this.#queue.push(entry);
  }

  #pump(): void {
    clearTimeout(this.#linger);
    this.#linger = undefined;
    this.#pumping ??= this.#writeAll().finally(() => {
      this.#pumping = undefined;
      if (this.#queue.length > 0 && !this.#closing.signal.aborted) this.#pump();
    });
  }

  async #writeAll(): Promise<void> {
    const { signal } = this.#closing;
    let retryMs = FIRST_RETRY_MS;
    while (this.#queue.length > 0 && !signal.aborted) {
      const batch = this.#queue.slice(0, BATCH);
      try {
        await this.#insert(batch);
        retryMs = FIRST_RETRY_MS;
        this.#queue.splice(0, batch.length);
        for (const { id } of batch) this.#written.get(id)?.();
      } catch (err) {
        this.#options.log.warn({ err, waiting: this.#queue.length }, 'could not write audit entries yet');
        await delay(retryMs, undefined, { signal }).catch(() => undefined);
        retryMs = Math.min(retryMs * 2, LAST_RETRY_MS);
      }
    }
  }

  /** @throws whatever says that the database cannot take entries now */
  async #insert(batch: readonly StampedEntry[]): Promise<void> {
    const { db, log } = this.#options;
    try {
      await insertEntries(db, batch);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      if (batch.length > 1) {
        for (const entry of batch) await this.#insert([entry]);
        return;
      }
      // Never to be written, and not to hold up the others. This log is the last place that can tell.
      log.error({ err: error, entry: batch[0] }, 'the database refuses an audit entry');
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closing.signal.aborted) return;
    const { unwritten, log, closeMs = CLOSE_MS } = this.#options;
    this.#pump();
    const late = new AbortController();
    // An INSERT that hangs is not waited for: written twice, an entry still is one.
    await Promise.race([this.#pumping, delay(closeMs, undefined, { signal: late.signal }).catch(() => undefined)]);
    late.abort();
    this.#closing.abort();
    if (this.#queue.length === 0) return;
    unwritten.keep(this.#queue);
    log.error({ entries: this.#queue.length, file: unwritten.file }, 'audit entries wait in a file for the next start');
  }
}

/** Whether it is the entry's own fault. Everything else passes: a database that restarts, is read-only, is locked. */
function isRefusal(error: unknown): boolean {
  const cause = error instanceof DrizzleQueryError ? error.cause : error;
  // Classes of SQLSTATE: 22 data, 23 constraints.
  return cause instanceof DatabaseError && /^2[23]/.test(cause.code ?? '');
}
