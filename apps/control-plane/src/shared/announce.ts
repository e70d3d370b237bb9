import { sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';

/** Something that every control plane is told. */
export interface Announcement {
  /** A name without quotes. */
  readonly channel: string;
  /** At most 8000 bytes. */
  readonly payload: string;
}

/** Takes announcements of transactions that were committed. It does not throw, and nobody waits for it. */
export type Carrier = (announcements: readonly Announcement[]) => void;

/** By database. Without one PostgreSQL carries announcements itself. */
const carriers = new WeakMap<Db, Carrier>();
/** By the session of the transaction, which its savepoints share. */
const outboxes = new WeakMap<object, Announcement[]>();

/**
 * Tells every control plane something, this one too, once the transaction is committed; at once where there is none. It
 * is a hint that may be lost when this program dies at that moment: who hears it also looks by themselves now and then.
 */
export async function announce(tx: Db, channel: string, ...payloads: readonly string[]): Promise<void> {
  const outbox = outboxes.get(tx._.session);
  if (outbox) outbox.push(...payloads.map((payload) => ({ channel, payload })));
  else if (payloads.length > 0) {
    await tx.execute(sql`
      SELECT pg_notify(${channel}, payload) FROM json_array_elements_text(${JSON.stringify(payloads)}::json) AS payload`);
  }
}

/** From now on the announcements of the database's transactions go by this carrier. */
export function carryAnnouncements(db: Db, carrier: Carrier): Disposable {
  carriers.set(db, carrier);
  return { [Symbol.dispose]: () => void carriers.delete(db) };
}

/**
 * Runs a transaction, and what it announced goes out when it is committed.
 *
 * @param begin begins one, runs the work in it, and ends it
 */
export async function announcing<T>(
  db: Db,
  begin: (work: (tx: Db) => Promise<T>) => Promise<T>,
  work: (tx: Db) => Promise<T>,
): Promise<T> {
  const carrier = carriers.get(db);
  if (!carrier) return begin(work);
  const outbox: Announcement[] = [];
  const result = await begin((tx) => {
    outboxes.set(tx._.session, outbox);
    keepSavepoints(tx, outbox);
    return work(tx);
  });
  if (outbox.length > 0) carrier(outbox);
  return result;
}

/** What a part announced that was rolled back is not told. */
function keepSavepoints(tx: Db, outbox: Announcement[]): void {
  const begin = tx.transaction.bind(tx);
  tx.transaction = async (run, config) => {
    const before = outbox.length;
    try {
      return await begin((inner) => {
        keepSavepoints(inner, outbox);
        return run(inner);
      }, config);
    } catch (error) {
      outbox.length = before;
      throw error;
    }
  };
}
