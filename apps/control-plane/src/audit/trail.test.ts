import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '@wrenn/testing/until';
import { eq } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { Pool } from 'pg';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { SYSTEM } from '../access/actor.ts';
import { auditLog } from '../database/audit-schema.ts';
import type { Database, Db } from '../database/database.ts';
import * as schema from '../database/schema.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import type { AuditEntry } from './record.ts';
import { AuditTrail, type TrailOptions } from './trail.ts';
import { UnwrittenEntries } from './unwritten.ts';

const log = pino({ level: 'silent' });

let database: Database;
let db: Db;
/** A database that does not answer. */
let away: Db;
let dir: string;
const pool = new Pool({ host: '127.0.0.1', port: 1, connectionTimeoutMillis: 500 });
beforeAll(async () => {
  database = await openTestDatabase();
  db = database.db;
  away = drizzle(pool, { schema });
});
afterAll(async () => {
  await pool.end();
  await database[Symbol.asyncDispose]();
});
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-audit-'));
});
afterEach(() => rm(dir, { recursive: true }));

/** One that is away until `back` is called. */
function unsteady(): { db: Db; back: () => void } {
  let current = away;
  const proxy = new Proxy(db, { get: (_, name) => Reflect.get(current, name, current) });
  return {
    db: proxy,
    back: () => {
      current = db;
    },
  };
}

const open = (options: Partial<TrailOptions> = {}) =>
  new AuditTrail({ db, unwritten: new UnwrittenEntries(dir), log, ...options });

let teams = 0;
function entries(count: number): AuditEntry[] {
  const teamId = `team-of-trail-${teams++}`;
  return Array.from({ length: count }, (_, index) => ({
    ...{ teamId, actor: SYSTEM, resourceType: 'capsule', resourceId: `cl-${index}`, action: 'exec' },
    ...{ scope: 'team', status: 'success', metadata: { index } },
  }));
}
const count = ([first]: AuditEntry[]) => db.$count(auditLog, eq(auditLog.teamId, first?.teamId ?? ''));

describe('the trail', () => {
  it('writes soon, in few batches, and keeps the time at which it was told', async () => {
    await using trail = open();
    const made = entries(600);
    const beganMs = Date.now();
    for (const entry of made) trail.add(entry);
    const toldMs = Date.now();
    await until('all are written', async () => (await count(made)) === 600);
    const rows = await db
      .select()
      .from(auditLog)
      .where(eq(auditLog.teamId, made[0]?.teamId ?? ''));
    expect(new Set(rows.map(({ writtenIn }) => writtenIn)).size).toBeLessThan(10);
    for (const { createdAt } of rows) {
      expect(createdAt.getTime()).toBeGreaterThanOrEqual(beganMs);
      expect(createdAt.getTime()).toBeLessThanOrEqual(toldMs);
    }
  });

  it('has an entry written when `write` resolves', async () => {
    await using trail = open();
    const made = entries(20);
    await Promise.all(made.map((entry) => trail.write(entry, 5000)));
    expect(await count(made)).toBe(20);
  });

  it('keeps entries while the database is away, and refuses more than it can keep', async () => {
    const { db: shaky, back } = unsteady();
    await using trail = open({ db: shaky, queueLimit: 50 });
    const made = entries(50);
    await trail.write(made[0] as AuditEntry, 200);
    for (const entry of made.slice(1)) {
      expect(trail.isFull).toBe(false);
      trail.add(entry);
    }
    expect([trail.isFull, trail.waiting, await count(made)]).toEqual([true, 50, 0]);
    back();
    await until('all are written', async () => (await count(made)) === 50);
    await until('nothing waits', () => trail.waiting === 0 && !trail.isFull);
  });

  it('leaves what is unwritten at its end to the next one', async () => {
    const made = entries(300);
    const first = open({ db: away, closeMs: 50 });
    for (const entry of made) first.add(entry);
    await first[Symbol.asyncDispose]();
    // A connection that ends after everything else.
    const late = entries(1);
    first.add(late[0] as AuditEntry);
    const [file = ''] = await readdir(dir);
    const { mode, size } = await stat(join(dir, file));
    expect(mode & 0o777).toBe(0o600);
    // Ended again, it leaves nothing twice.
    await first[Symbol.asyncDispose]();
    expect((await stat(join(dir, file))).size).toBe(size);
    // Two that start at once.
    await Promise.all([1, 2].map(() => new UnwrittenEntries(dir).writeAll(db, log)));
    expect([await count(made), await count(late), await readdir(dir)]).toEqual([300, 1, []]);
  });

  it('keeps the file as long as the database is away', async () => {
    const kept = open({ db: away, closeMs: 50 });
    const made = entries(1);
    kept.add(made[0] as AuditEntry);
    await kept[Symbol.asyncDispose]();
    await expect(new UnwrittenEntries(dir).writeAll(away, log)).rejects.toThrow();
    await new UnwrittenEntries(dir).writeAll(db, log);
    expect(await count(made)).toBe(1);
  });

  it('tells of an entry that the database refuses, and writes the others', async () => {
    const lines: string[] = [];
    const told = pino({ level: 'error' }, { write: (line: string) => void lines.push(line) });
    await using trail = open({ log: told });
    const made = entries(5);
    for (const [index, entry] of made.entries()) {
      trail.add(index === 2 ? { ...entry, status: 'odd' as AuditEntry['status'] } : entry);
    }
    await until('the others are written', async () => (await count(made)) === 4);
    expect(lines.join()).toContain('"resourceId":"cl-2"');
  });

  it('writes what waits before it ends', async () => {
    const made = entries(10);
    const trail = open();
    for (const entry of made) trail.add(entry);
    await trail[Symbol.asyncDispose]();
    expect(await count(made)).toBe(10);
    expect(await readdir(dir)).toEqual([]);
  });
});
