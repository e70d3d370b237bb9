import { until } from '@wrenn/testing/until';
import { sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';

/**
 * Resolves once so many statements, or more, of a database wait for a lock.
 *
 * @param part a piece of them; empty: whatever they are
 */
export async function untilBlocked(db: Db, count = 1, part = ''): Promise<void> {
  await until(`${count} wait for a lock`, async () => {
    const { rows } = await db.execute<{ blocked: number }>(sql`
      SELECT count(*)::int AS blocked FROM pg_stat_activity
      WHERE datname = current_database() AND wait_event_type = 'Lock' AND position(${part} IN query) > 0`);
    return (rows[0]?.blocked ?? 0) >= count;
  });
}
