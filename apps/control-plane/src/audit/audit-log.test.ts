import { setTimeout as delay } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { auditQuerySchema } from '@wrenn/protocol/rest/audit';
import { until } from '@wrenn/testing/until';
import { sql } from 'drizzle-orm';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SYSTEM } from '../access/actor.ts';
import type { Database, Db } from '../database/database.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { exportAudit, readAuditPage } from './audit-log.ts';
import type { AuditView } from './audit-store.ts';
import { type AuditEntry, insertEntries, recordAudit, stamp } from './record.ts';

let database: Database;
let db: Db;
beforeAll(async () => {
  database = await openTestDatabase();
  db = database.db;
});
afterAll(() => database[Symbol.asyncDispose]());

let teams = 0;
function newView(scopes: readonly ('team' | 'admin')[] = ['team']): Extract<AuditView, { of: 'team' }> {
  return { of: 'team', teamId: `team-of-test-${teams++}`, scopes };
}

function entry(teamId: string, fields: Partial<AuditEntry> = {}): AuditEntry {
  return {
    ...{ teamId, actor: SYSTEM, resourceType: 'capsule', action: 'create', scope: 'team', status: 'success' },
    ...fields,
  };
}

const read = (view: AuditView, query: object) => readAuditPage(db, view, auditQuerySchema.parse(query));

/** Ids of all entries, page by page. */
async function walk(view: AuditView, query: object, onPage: () => Promise<void> = async () => undefined) {
  const ids: string[] = [];
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const page = await read(view, { ...query, ...(cursor ? { cursor } : {}) });
    ids.push(...page.items.map(({ id }) => id));
    cursor = page.next_cursor;
    await onPage();
  }
  return ids;
}

describe('a walk through the pages', () => {
  it('has each entry once, newest first, however many have the same time', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 40 }),
        fc.integer({ min: 1, max: 7 }),
        async (offsetsMs, limit) => {
          const view = newView();
          const baseMs = Date.now() - 10_000;
          const made = offsetsMs.map((offset) => ({
            ...stamp(entry(view.teamId)),
            createdAt: new Date(baseMs + offset),
          }));
          if (made.length > 0) await insertEntries(db, made);
          const wanted = made
            .toSorted((a, b) => b.createdAt.getTime() - a.createdAt.getTime() || (a.id < b.id ? 1 : -1))
            .map(({ id }) => id);
          expect(await walk(view, { limit })).toEqual(wanted);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('has everything that was there when it began, while others write', async () => {
    const view = newView();
    await insertEntries(
      db,
      Array.from({ length: 60 }, () => stamp(entry(view.teamId))),
    );
    const before = await walk(view, { limit: 200 });
    const seen = await walk(view, { limit: 7 }, () => recordAudit(db, entry(view.teamId)));
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen.filter((id) => before.includes(id))).toEqual(before);
  });

  it('goes on from before and before_id, and from before alone', async () => {
    const view = newView();
    const createdAt = new Date();
    await insertEntries(
      db,
      Array.from({ length: 5 }, () => ({ ...stamp(entry(view.teamId)), createdAt })),
    );
    const first = await read(view, { limit: 2 });
    const second = await read(view, { before: first.next_before, before_id: first.next_before_id });
    expect([...first.items, ...second.items].map(({ id }) => id)).toEqual(await walk(view, {}));
    expect(first.next_before).toBe(createdAt.toISOString());
    expect((await read(view, { before: createdAt.toISOString() })).items).toEqual([]);
    expect(second.next_cursor).toBeNull();
  });

  it.each([{ cursor: 'x' }, { cursor: Buffer.from('["w","1"]').toString('base64url') }, { after: 'soon' }])(
    'refuses %j',
    async (query) => {
      await expect(read(newView(), query)).rejects.toMatchObject({ code: 'invalid_request' });
    },
  );
});

describe('a follower', () => {
  it('misses nothing and repeats nothing, in whatever order transactions end', async () => {
    const view = newView();
    const written: string[] = [];
    let isOver = false;
    const writer = async (number: number) => {
      for (let round = 0; round < 15; round++) {
        await db.transaction(async (tx) => {
          const count = 1 + ((round + number) % 3);
          const made = Array.from({ length: count }, () => stamp(entry(view.teamId)));
          await insertEntries(tx, made);
          // So that those which began first do not end first.
          await delay((number * 7 + round * 3) % 20);
          written.push(...made.map(({ id }) => id));
        });
      }
    };
    const { next_after: began } = await read(view, { after: 'now' });
    const followed: string[] = [];
    let after = began;
    const step = async () => {
      const page = await read(view, { after, limit: 5 });
      followed.push(...page.items.map(({ id }) => id));
      after = page.next_after;
      return page.items.length;
    };
    const following = (async () => {
      while (!isOver) if ((await step()) === 0) await delay(1);
    })();
    await Promise.all([1, 2, 3, 4, 5].map(writer));
    isOver = true;
    await following;
    await until('the follower has everything', async () => {
      await step();
      return followed.length >= written.length;
    });
    expect(followed.toSorted()).toEqual(written.toSorted());
  });

  it('waits for a transaction that began earlier than those that have ended', async () => {
    const view = newView();
    const { next_after: after } = await read(view, { after: 'now' });
    const release = Promise.withResolvers<void>();
    const isWritten = Promise.withResolvers<void>();
    const slow = db.transaction(async (tx) => {
      await recordAudit(tx, entry(view.teamId, { action: 'slow' }));
      isWritten.resolve();
      await release.promise;
    });
    await isWritten.promise;
    await recordAudit(db, entry(view.teamId, { action: 'quick' }));
    const early = await read(view, { after });
    expect(early.items).toEqual([]);
    expect((await read(view, {})).items.map(({ action }) => action)).toEqual(['quick']);
    release.resolve();
    await slow;
    const actions: string[] = [];
    let next = early.next_after;
    await until('both are there', async () => {
      const page = await read(view, { after: next });
      next = page.next_after;
      actions.push(...page.items.map(({ action }) => action));
      return actions.length === 2;
    });
    expect(actions).toEqual(['slow', 'quick']);
  });

  it('has the whole log from its start', async () => {
    const view = newView();
    await insertEntries(db, [stamp(entry(view.teamId)), stamp(entry(view.teamId))]);
    await until('no older transaction goes on', async () => (await read(view, { after: 'start' })).items.length === 2);
  });
});

describe('filters', () => {
  it('take only what they name', async () => {
    const view = newView(['team', 'admin']);
    const user = { type: 'user' as const, id: 'usr-1', name: 'Ada' };
    const add = (fields: Partial<AuditEntry>) => recordAudit(db, entry(view.teamId, fields));
    await add({ action: 'create', resourceId: 'cl-1' });
    await add({ action: 'pause', resourceId: 'cl-1', status: 'error' });
    await add({ action: 'add', resourceType: 'member', scope: 'admin', actor: user });
    await add({ action: 'create', resourceType: 'snapshot', actor: user });
    const actions = async (query: object, from: AuditView = view) =>
      (await read(from, query)).items.map(({ resource_type, action }) => `${resource_type} ${action}`).toSorted();
    expect(await actions({ action: 'pause,add' })).toEqual(['capsule pause', 'member add']);
    expect(await actions({ action: ['pause', 'add'] })).toEqual(['capsule pause', 'member add']);
    expect(await actions({ resource_type: 'capsule', status: 'error' })).toEqual(['capsule pause']);
    expect(await actions({ actor: 'usr-1' })).toEqual(['member add', 'snapshot create']);
    expect(await actions({ resource_id: 'cl-1' })).toEqual(['capsule create', 'capsule pause']);
    expect(await actions({ to: '2020-01-01T00:00:00Z' })).toEqual([]);
    expect(await actions({ from: '2020-01-01T00:00:00Z' })).toHaveLength(4);
    expect(await actions({}, { ...view, scopes: ['team'] })).not.toContain('member add');
    expect(await actions({}, newView(['team', 'admin']))).toEqual([]);
  });
});

describe('entries', () => {
  it('cannot be changed or removed', async () => {
    const view = newView();
    await recordAudit(db, entry(view.teamId));
    const { message } = await db
      .execute(sql`UPDATE audit_log SET status = 'error' WHERE team_id = ${view.teamId}`)
      .then(() => ({ message: 'changed' }))
      .catch((error: Error) => ({ message: String(error.cause) }));
    expect(message).toMatch(/are not changed/);
    await expect(db.execute(sql`DELETE FROM audit_log WHERE team_id = ${view.teamId}`)).rejects.toThrow();
    expect((await read(view, {})).items).toMatchObject([{ status: 'success' }]);
  });

  it('hold what PostgreSQL has no place for, in some form', async () => {
    const view = newView();
    const actor = { ...SYSTEM, name: 'a\0b' };
    await recordAudit(
      db,
      entry(view.teamId, {
        actor,
        metadata: { path: `\0\ud800${'x'.repeat(5000)}`, list: ['\0'], '\0': { 'b\0': 1 } },
      }),
    );
    const [item] = (await read(view, {})).items;
    expect(item).toMatchObject({ actor_name: 'a\uFFFDb', metadata: { list: ['\uFFFD'], '\uFFFD': { 'b\uFFFD': 1 } } });
    expect(String(item?.metadata.path)).toHaveLength(1024);
  });
});

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

describe('an export', () => {
  it('has 50,000 entries in their order, and never holds many of them', async () => {
    const view = newView();
    await db.execute(sql`INSERT INTO audit_log
      (id, team_id, actor_type, actor_name, resource_type, action, scope, status, metadata, created_at)
      SELECT 'log-' || lpad(n::text, 25, '0'), ${view.teamId}, 'system', 'system', 'capsule', 'exec', 'team', 'success',
        jsonb_build_object('path', repeat('x', 400)), now() - (n % 1000) * interval '1 millisecond'
      FROM generate_series(1, 50000) n`);
    collectGarbage();
    const startBytes = process.memoryUsage().heapUsed;
    let mostBytes = 0;
    let count = 0;
    let last = '';
    for await (const { created_at, id } of exportAudit(db, view, {})) {
      const key = `${created_at} ${id}`;
      if (key <= last) throw new Error(`${key} comes after ${last}`);
      last = key;
      if (++count % 5000 === 0) {
        collectGarbage();
        mostBytes = Math.max(mostBytes, process.memoryUsage().heapUsed - startBytes);
      }
    }
    expect(count).toBe(50_000);
    // All of them at once are more than 50 MB.
    expect(mostBytes).toBeLessThan(10 * 1024 * 1024);
  });
});
