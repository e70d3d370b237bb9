import { setTimeout as delay } from 'node:timers/promises';
import { DrizzleQueryError } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { DatabaseError, type Pool } from 'pg';
import { announcing } from '../shared/announce.ts';
import type { Db } from './database.ts';
import * as schema from './schema.ts';

/** More than a transaction meets by chance: one that waits in a circle again and again is a defect, and fails. */
const MAX_ATTEMPTS = 5;
/** The other one has to be woken first, else it would be overtaken, and meet this one again. */
const PAUSE_MS = 20;

/**
 * The database over a pool. Drizzle itself does not give back a connection on which BEGIN fails, so that after an outage
 * the pool would stay empty; here every transaction gives its connection back, and one that failed for good is closed.
 *
 * A transaction that PostgreSQL ended for the sake of another one, with which it waited in a circle, is run again as a
 * whole: nothing of it was written or announced.
 *
 * @param isBroken whether an error says that the connection is of no more use
 */
export function openPooledDb(pool: Pool, isBroken: (error: unknown) => boolean): Db {
  const db: Db = drizzle(pool, { schema });
  db.transaction = (run, config) =>
    untilUndisturbed(async () => {
      const client = await pool.connect();
      let broken = false;
      try {
        // Without the schema, which only relational queries need, and which takes longer to read than a BEGIN.
        const session = drizzle(client) as unknown as Db;
        return await announcing(
          db,
          (work) => session.transaction((tx) => work(tx), config),
          (tx) => run(tx as Parameters<typeof run>[0]),
        );
      } catch (error) {
        broken = isBroken(error);
        throw error;
      } finally {
        client.release(broken);
      }
    });
  return db;
}

async function untilUndisturbed<T>(run: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await run();
    } catch (error) {
      if (attempt === MAX_ATTEMPTS || !isConflict(error)) throw error;
      await delay(PAUSE_MS * attempt * (1 + Math.random()));
    }
  }
}

/** Codes of SQLSTATE: serialization failure, deadlock. */
function isConflict(error: unknown): boolean {
  const cause = error instanceof DrizzleQueryError ? error.cause : error;
  return cause instanceof DatabaseError && ['40001', '40P01'].includes(cause.code ?? '');
}
