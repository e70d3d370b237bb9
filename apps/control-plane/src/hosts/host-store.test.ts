import { eq, sql } from 'drizzle-orm';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Database } from '../database/database.ts';
import { hosts } from '../database/host-schema.ts';
import { untilBlocked } from '../testing/blocked.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { recordLastHeard } from './host-store.ts';

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database[Symbol.asyncDispose]());

async function secondsSinceSeen(id: string): Promise<number> {
  const [row] = await database.db
    .select({ age: sql<number>`extract(epoch FROM now() - ${hosts.lastSeenAt})::float8` })
    .from(hosts)
    .where(eq(hosts.id, id));
  return row?.age ?? Number.NaN;
}

it('writes down when a host was last heard of, by the clock of the database, and never goes back', async () => {
  const { db } = database;
  await db.insert(hosts).values(['host-a', 'host-b', 'host-c'].map((id) => ({ id, status: 'online' as const })));
  const ago = (seconds: number) => performance.now() - seconds * 1000;
  const never = { id: 'host-c', heardMs: undefined };
  await recordLastHeard(db, [{ id: 'host-a', heardMs: ago(40) }, { id: 'host-b', heardMs: ago(0) }, never]);
  expect(await secondsSinceSeen('host-a')).toBeGreaterThan(39.9);
  expect(await secondsSinceSeen('host-a')).toBeLessThan(50);
  expect(await secondsSinceSeen('host-b')).toBeLessThan(10);
  expect(await secondsSinceSeen('host-c')).toBeNaN();
  await recordLastHeard(db, [{ id: 'host-a', heardMs: ago(60) }]);
  expect(await secondsSinceSeen('host-a')).toBeLessThan(50);
  // What is recent enough is not written again.
  await recordLastHeard(db, [{ id: 'host-a', heardMs: ago(0) }], 60_000);
  expect(await secondsSinceSeen('host-a')).toBeGreaterThan(39);
  await recordLastHeard(db, [{ id: 'host-a', heardMs: ago(0) }], 30_000);
  expect(await secondsSinceSeen('host-a')).toBeLessThan(10);
});

it('waits for a host that somebody else has without having those after it', async () => {
  const { db } = database;
  await db.insert(hosts).values(['host-z', 'host-y'].map((id) => ({ id, status: 'online' as const })));
  const { written } = await db.transaction(async (tx) => {
    await tx.select().from(hosts).where(eq(hosts.id, 'host-y')).for('update');
    const begun = recordLastHeard(
      db,
      ['host-z', 'host-y'].map((id) => ({ id, heardMs: performance.now() })),
    );
    await untilBlocked(db);
    await tx.select().from(hosts).where(eq(hosts.id, 'host-z')).for('update', { noWait: true });
    return { written: begun };
  });
  await written;
  for (const id of ['host-y', 'host-z']) expect(await secondsSinceSeen(id)).toBeLessThan(10);
});
