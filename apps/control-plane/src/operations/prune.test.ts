import { newId } from '@wrenn/protocol/ids';
import { until } from '@wrenn/testing/until';
import { eq } from 'drizzle-orm';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { insertCapsule } from '../capsules/capsule-store.ts';
import type { Database } from '../database/database.ts';
import { teams } from '../database/people-schema.ts';
import { operations } from '../database/schema.ts';
import { ensureHostRow } from '../hosts/host-store.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { finishOperation, insertOperation } from './operation-store.ts';
import { pruneOperations } from './prune.ts';

const DAY_MS = 24 * 3_600_000;

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database[Symbol.asyncDispose]());

it('removes what ended more than 30 days ago, and nothing else', async () => {
  const { db } = database;
  await db.insert(teams).values({ id: 'team-test', name: 'test', slug: 'test' });
  const hostId = await ensureHostRow(db, 'https://test:1');
  const { id: capsuleId } = await insertCapsule(db, {
    ...{ id: newId('cl'), teamId: 'team-test', hostId, template: 'minimal', vcpus: 1, memoryMb: 512 },
    ...{ diskRequestMb: 0, timeoutSec: 0, envs: {}, labels: {}, versions: {}, accessToken: 'secret' },
  });
  const insert = () =>
    insertOperation(db, { teamId: 'team-test', capsuleId, kind: 'capsule.pause', actor: 'test', owner: 1 });
  const [old, recent, running] = [await insert(), await insert(), await insert()];
  for (const { id } of [old, recent]) await finishOperation(db, id, {});
  const endedAt = (days: number) => new Date(Date.now() - days * DAY_MS);
  await db
    .update(operations)
    .set({ finishedAt: endedAt(31) })
    .where(eq(operations.id, old.id));
  await db
    .update(operations)
    .set({ finishedAt: endedAt(29) })
    .where(eq(operations.id, recent.id));

  const stop = new AbortController();
  const job = pruneOperations(db, stop.signal, pino({ level: 'silent' }));
  const left = async () => (await db.select().from(operations)).map(({ id }) => id).sort();
  await until('the old one is gone', async () => !(await left()).includes(old.id));
  stop.abort();
  await job;
  expect(await left()).toEqual([recent.id, running.id].sort());
});
