import type { Db } from './database.ts';

/**
 * A statement for what runs at every request: it is built once a database, and parsed once on each connection.
 *
 * @param prepare builds it, with a name that no other has
 */
export function preparedOnce<Query>(prepare: (db: Db) => Query): (db: Db) => Query {
  const queries = new WeakMap<Db, Query>();
  return (db) => {
    const known = queries.get(db);
    if (known) return known;
    const query = prepare(db);
    queries.set(db, query);
    return query;
  };
}
