import { drizzle } from 'drizzle-orm/node-postgres';
import type { Pool } from 'pg';
import { announcing } from '../shared/announce.ts';
import type { Db } from './database.ts';
import * as schema from './schema.ts';

/**
 * The database over a pool. Drizzle itself does not give back a connection on which BEGIN fails, so that after an outage
 * the pool would stay empty; here every transaction gives its connection back, and one that failed for good is closed.
 *
 * @param isBroken whether an error says that the connection is of no more use
 */
export function openPooledDb(pool: Pool, isBroken: (error: unknown) => boolean): Db {
  const db: Db = drizzle(pool, { schema });
  db.transaction = async (run, config) => {
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
  };
  return db;
}
