import { CAPSULE_STATUSES } from '@wrenn/protocol/rest/capsule';
import { eq, sql } from 'drizzle-orm';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Database } from '../database/database.ts';
import { hosts } from '../database/host-schema.ts';
import { teams } from '../database/people-schema.ts';
import { capsules } from '../database/schema.ts';
import { openTestDatabase } from '../testing/test-database.ts';

const HOSTS = ['host-a', 'host-b', 'host-c'];
const TEAMS = ['team-a', 'team-b'];
const CAPSULES = ['cl-1', 'cl-2', 'cl-3', 'cl-4', 'cl-5'];

let database: Database;
let db: Database['db'];

beforeAll(async () => {
  database = await openTestDatabase();
  db = database.db;
  await db.insert(teams).values(TEAMS.map((id) => ({ id, name: id, slug: id })));
  await db.insert(hosts).values(HOSTS.map((id) => ({ id, status: 'online' as const })));
});
afterAll(() => database[Symbol.asyncDispose]());

const fields = {
  status: fc.constantFrom(...CAPSULE_STATUSES),
  hostId: fc.constantFrom(...HOSTS),
  teamId: fc.constantFrom(...TEAMS),
  vcpus: fc.integer({ min: 1, max: 8 }),
  memoryMb: fc.integer({ min: 1, max: 5000 }),
  diskMb: fc.option(fc.integer({ min: 1, max: 90_000 })),
  diskRequestMb: fc.constantFrom(0, 5000),
};
const id = fc.constantFrom(...CAPSULES);
const step = fc.oneof(
  fc.record({ act: fc.constant('insert' as const), id, values: fc.record(fields) }),
  fc.record({ act: fc.constant('update' as const), id, values: fc.record(fields, { requiredKeys: ['status'] }) }),
  fc.record({ act: fc.constant('delete' as const), id, values: fc.constant({}) }),
);

// Written apart from the trigger: which states hold what is the contract, not how it is counted.
const AWAKE = sql`c.status IN ('pending','starting','running','pausing','resuming','forking','stopping','missing')`;
const ASLEEP = sql`c.status IN ('paused','hibernating')`;
const AWAY = sql`c.status = 'hibernated'`;
const DISK = sql`CASE WHEN c.disk_mb IS NOT NULL THEN c.disk_mb WHEN c.disk_request_mb > 0 THEN c.disk_request_mb ELSE 1024 END`;
const total = (what: ReturnType<typeof sql>, where: ReturnType<typeof sql>) =>
  sql`coalesce(sum(${what}) FILTER (WHERE ${where}), 0)::int`;

async function expectSums(): Promise<void> {
  const counted = await db.execute(
    sql`SELECT host_id, running, vcpus, memory_mb::int, disk_mb::int, asleep, asleep_memory_mb::int, asleep_disk_mb::int
      FROM host_load ORDER BY host_id`,
  );
  const summed = await db.execute(sql`SELECT h.id AS host_id, ${total(sql`1`, AWAKE)} AS running,
      ${total(sql`c.vcpus`, AWAKE)} AS vcpus, ${total(sql`c.memory_mb`, AWAKE)} AS memory_mb,
      ${total(DISK, AWAKE)} AS disk_mb, ${total(sql`1`, ASLEEP)} AS asleep,
      ${total(sql`c.memory_mb`, ASLEEP)} AS asleep_memory_mb, ${total(DISK, ASLEEP)} AS asleep_disk_mb
    FROM hosts h LEFT JOIN capsules c ON c.host_id = h.id GROUP BY h.id ORDER BY h.id`);
  expect(counted.rows).toEqual(summed.rows);
  const countedTeams = await db.execute(
    sql`SELECT team_id, running, vcpus, memory_mb::int, asleep, asleep_half_memory_mb::int, disk_mb::int
      FROM team_load ORDER BY team_id`,
  );
  const slept = sql`(${ASLEEP} OR ${AWAY})`;
  const summedTeams = await db.execute(sql`SELECT t.id AS team_id, ${total(sql`1`, AWAKE)} AS running,
      ${total(sql`c.vcpus`, AWAKE)} AS vcpus, ${total(sql`c.memory_mb`, AWAKE)} AS memory_mb,
      ${total(sql`1`, slept)} AS asleep, ${total(sql`ceil(c.memory_mb / 2.0)`, slept)} AS asleep_half_memory_mb,
      ${total(DISK, sql`(${AWAKE} OR ${slept})`)} AS disk_mb
    FROM teams t LEFT JOIN capsules c ON c.team_id = t.id GROUP BY t.id ORDER BY t.id`);
  expect(countedTeams.rows).toEqual(summedTeams.rows);
}

describe('counters of what capsules hold', () => {
  it('equal the sums over all capsules after whatever happened to them', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
        for (const { act, id: capsuleId, values } of steps) {
          const row = { template: 't', timeoutSec: 0, envs: {}, labels: {}, versions: {}, accessToken: '' };
          if (act === 'insert') {
            await db
              .insert(capsules)
              .values({ ...row, ...values, id: capsuleId })
              .onConflictDoNothing();
          } else if (act === 'update') {
            const known = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
            await db.update(capsules).set(known).where(eq(capsules.id, capsuleId));
          } else await db.delete(capsules).where(eq(capsules.id, capsuleId));
        }
        await expectSums();
      }),
      { numRuns: 40 },
    );
  });

  it('follow many rows that change at once, and take nothing back of what is undone', async () => {
    await db.update(capsules).set({ status: 'paused' });
    await expectSums();
    await db
      .transaction(async (tx) => {
        await tx.update(capsules).set({ status: 'running', hostId: 'host-a' });
        throw new Error('undone');
      })
      .catch(() => undefined);
    await expectSums();
    await db.delete(capsules);
    await expectSums();
  });

  it('do not lock each other out when capsules move in both directions at once', async () => {
    const base = {
      template: 't',
      timeoutSec: 0,
      envs: {},
      labels: {},
      versions: {},
      accessToken: '',
      status: 'running',
    } as const;
    const shape = { vcpus: 1, memoryMb: 1, diskRequestMb: 0 };
    const ids = Array.from({ length: 8 }, (_, i) => `cl-m${i}`);
    await db.insert(capsules).values(
      ids.map((capsuleId, i) => ({
        ...base,
        ...shape,
        id: capsuleId,
        hostId: HOSTS[i % 2] ?? '',
        teamId: TEAMS[i % 2] ?? '',
      })),
    );
    for (let round = 1; round <= 20; round++) {
      await Promise.all(
        ids.map((capsuleId, i) =>
          db
            .update(capsules)
            .set({ hostId: HOSTS[(i + round) % 2] ?? '' })
            .where(eq(capsules.id, capsuleId)),
        ),
      );
    }
    await expectSums();
  });

  it('go with their host and team', async () => {
    await db.delete(capsules);
    await db.delete(hosts).where(eq(hosts.id, 'host-c'));
    await db.delete(teams).where(eq(teams.id, 'team-b'));
    await expectSums();
  });
});
