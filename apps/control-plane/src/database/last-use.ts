import { setTimeout as delay } from 'node:timers/promises';
import { sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import type { Db } from './database.ts';

const FLUSH_INTERVAL_MS = 5000;

/** Where it is kept when a row was last used. The table's key is `id`. */
export interface LastUseColumn {
  readonly table: string;
  readonly column: string;
}

/**
 * When rows were last used: noted in memory, and written for all of them together, so that a request does not wait for
 * it. Of several control planes the later time counts. Disposing it writes what is left.
 */
export class LastUse implements AsyncDisposable {
  readonly #db: Db;
  readonly #log: Logger;
  readonly #where: LastUseColumn;
  readonly #stopped = new AbortController();
  readonly #running: Promise<void>;
  /** By id of the row, in milliseconds since the epoch. */
  #used = new Map<string, number>();

  constructor(db: Db, log: Logger, where: LastUseColumn, intervalMs = FLUSH_INTERVAL_MS) {
    this.#db = db;
    this.#log = log;
    this.#where = where;
    this.#running = this.#run(intervalMs);
  }

  note(id: string): void {
    this.#used.set(id, Date.now());
  }

  /** Writes what was noted. What cannot be written, or is locked right now, is kept for the next time. */
  async flush(): Promise<void> {
    const used = this.#used;
    if (used.size === 0) return;
    this.#used = new Map();
    try {
      for (const id of await writeLastUse(this.#db, this.#where, used)) this.#keep(id, used.get(id));
    } catch (error) {
      for (const [id, at] of used) this.#keep(id, at);
      throw error;
    }
  }

  #keep(id: string, at = 0): void {
    if (at > (this.#used.get(id) ?? 0)) this.#used.set(id, at);
  }

  async #run(intervalMs: number): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      await delay(intervalMs, undefined, { signal, ref: false }).catch(() => undefined);
      await this.flush().catch((err: unknown) => {
        this.#log.warn({ err, table: this.#where.table }, 'cannot write when rows were last used');
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }
}

/**
 * One statement for all. It waits for no row: others lock many of the same ones, in other orders.
 *
 * @returns ids of rows that were locked, and not written
 */
async function writeLastUse(db: Db, where: LastUseColumn, used: ReadonlyMap<string, number>): Promise<string[]> {
  const rows = JSON.stringify([...used].map(([id, at]) => ({ id, at: new Date(at).toISOString() })));
  const table = sql.identifier(where.table);
  const column = sql.identifier(where.column);
  const { rows: left } = await db.execute<{ id: string }>(sql`
    WITH noted AS (SELECT * FROM jsonb_to_recordset(${rows}::jsonb) AS noted (id text, at timestamptz)),
    locked AS (
      SELECT used.id, noted.at FROM ${table} used JOIN noted ON noted.id = used.id
      ORDER BY used.id FOR NO KEY UPDATE OF used SKIP LOCKED
    ), written AS (
      UPDATE ${table} used SET ${column} = locked.at
      FROM locked WHERE used.id = locked.id AND (used.${column} IS NULL OR used.${column} < locked.at)
    )
    SELECT used.id FROM ${table} used JOIN noted ON noted.id = used.id
    WHERE used.id NOT IN (SELECT id FROM locked)`);
  return left.map(({ id }) => id);
}
