import { sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { OWNER_LOCK_CLASS } from '../operations/operation-store.ts';

/** Every heartbeat asks, and the answer changes seldom. */
const KEEP_MS = 5000;

/** The id of the control plane that has this number among those of its database. */
export function controlPlaneId(owner: number): string {
  return `cp-${owner}`;
}

/** Which control planes run: each holds a lock in the database as long as it lives. */
export class ControlPlanes {
  readonly #db: Db;
  #known: { readonly ids: Promise<string[]>; readonly untilMs: number } | undefined;

  constructor(db: Db) {
    this.#db = db;
  }

  /** Ids of all, as they were some seconds ago at most. */
  list(): Promise<string[]> {
    const nowMs = performance.now();
    if (!this.#known || this.#known.untilMs <= nowMs) {
      const ids = this.#read();
      this.#known = { ids, untilMs: nowMs + KEEP_MS };
      ids.catch(() => {
        this.#known = undefined;
      });
    }
    return this.#known.ids;
  }

  async #read(): Promise<string[]> {
    const { rows } = await this.#db.execute<{ owner: string }>(sql`
      SELECT objid::bigint AS owner FROM pg_locks
      WHERE locktype = 'advisory' AND granted AND classid::bigint = ${OWNER_LOCK_CLASS}
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      ORDER BY 1`);
    return rows.map(({ owner }) => controlPlaneId(Number(owner)));
  }
}
