import { sql } from 'drizzle-orm';
import { expect, it } from 'vitest';
import { announce, carryAnnouncements } from '../shared/announce.ts';
import { openTestDatabase } from '../testing/test-database.ts';

it('run again as a whole when they waited for each other in a circle', async () => {
  await using database = await openTestDatabase();
  const { db } = database;
  const told: string[] = [];
  using _ = carryAnnouncements(db, (announcements) => told.push(...announcements.map(({ payload }) => payload)));
  await db.execute(sql`CREATE TABLE counts (name text PRIMARY KEY, n int NOT NULL DEFAULT 0)`);
  await db.execute(sql`INSERT INTO counts VALUES ('a'), ('b')`);
  const holds = { a: Promise.withResolvers<void>(), b: Promise.withResolvers<void>() };
  let attempts = 0;
  const addToBoth = (first: 'a' | 'b', second: 'a' | 'b') =>
    db.transaction(async (tx) => {
      attempts += 1;
      await tx.execute(sql`UPDATE counts SET n = n + 1 WHERE name = ${first}`);
      await announce(tx, 'added', first);
      holds[first].resolve();
      await holds[second].promise;
      await tx.execute(sql`UPDATE counts SET n = n + 1 WHERE name = ${second}`);
      return first;
    });
  expect(await Promise.all([addToBoth('a', 'b'), addToBoth('b', 'a')])).toEqual(['a', 'b']);
  expect(attempts).toBeGreaterThan(2);
  expect(told.sort()).toEqual(['a', 'b']);
  const { rows } = await db.execute(sql`SELECT name, n FROM counts ORDER BY name`);
  expect(rows).toEqual([
    { name: 'a', n: 2 },
    { name: 'b', n: 2 },
  ]);
});

it('fail with what their work threw, after one run', async () => {
  await using database = await openTestDatabase();
  let attempts = 0;
  const failing = database.db.transaction(async (tx) => {
    attempts += 1;
    await tx.execute(sql`SELECT 1 / 0`);
  });
  await expect(failing).rejects.toMatchObject({ cause: { code: '22012' } });
  expect(attempts).toBe(1);
});

it('fail after a few runs that all were disturbed', async () => {
  await using database = await openTestDatabase();
  let attempts = 0;
  const disturbed = database.db.transaction(async (tx) => {
    attempts += 1;
    await tx.execute(sql`DO $$ BEGIN RAISE EXCEPTION 'disturbed' USING ERRCODE = 'serialization_failure'; END $$`);
  });
  await expect(disturbed).rejects.toMatchObject({ cause: { code: '40001' } });
  expect(attempts).toBe(5);
});
