import { and, eq } from 'drizzle-orm';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { SYSTEM } from '../access/actor.ts';
import type { Database } from '../database/database.ts';
import { teamMembers, teams } from '../database/people-schema.ts';
import { untilBlocked } from '../testing/blocked.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { createAdmin } from './administrators.ts';

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database?.[Symbol.asyncDispose]());

it('gives the team that the platform began with to one of two first administrators at the same moment', async () => {
  const { db } = database;
  await db.insert(teams).values({ id: 'team-first', name: 'default', slug: 'first' });
  const { made } = await db.transaction(async (tx) => {
    await tx.select().from(teams).where(eq(teams.id, 'team-first')).for('no key update');
    const begun = ['ada', 'grace'].map((name) =>
      createAdmin(db, { email: `${name}@example.com`, name, passwordHash: null }, SYSTEM),
    );
    await untilBlocked(db, 2);
    return { made: Promise.all(begun) };
  });
  expect(await made).toHaveLength(2);
  const owners = await db
    .select({ team: teams.name })
    .from(teams)
    .innerJoin(teamMembers, and(eq(teamMembers.teamId, teams.id), eq(teamMembers.role, 'owner')));
  expect(owners).toHaveLength(2);
  expect(owners).toContainEqual({ team: 'default' });
});
