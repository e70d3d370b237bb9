import { until } from '@wrenn/testing/until';
import { DrizzleQueryError, sql } from 'drizzle-orm';
import { DatabaseError } from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SYSTEM } from '../access/actor.ts';
import { auditLog } from '../database/audit-schema.ts';
import type { Database, Db } from '../database/database.ts';
import { tendPartitions } from '../database/partitions.ts';
import { users } from '../database/people-schema.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { anonymiseActor } from './anonymise-actor.ts';
import { auditPartitions } from './partitions.ts';
import { type AuditEntry, insertEntries, recordAudit, stamp } from './record.ts';

let database: Database;
let db: Db;
beforeEach(async () => {
  database = await openTestDatabase();
  db = database.db;
});
afterEach(() => database[Symbol.asyncDispose]());

const at = (instant: string) => new Date(instant);
const tend = (now: string, retentionDays = 365) => tendPartitions(db, auditPartitions(retentionDays), at(now));

/** SQLSTATE lock_not_available: it waits for others for two seconds and no more. */
function isLockTimeout(error: unknown): boolean {
  const cause = error instanceof DrizzleQueryError ? error.cause : error;
  return cause instanceof DatabaseError && cause.code === '55P03';
}

/** Tends them, again where others held a lock for too long. */
const tendPatiently = (now: string) =>
  until('it has every lock', () =>
    tend(now).catch((error: unknown) => {
      if (!isLockTimeout(error)) throw error;
      return undefined;
    }),
  );

async function insertAt(...instants: string[]): Promise<void> {
  const entry: AuditEntry = {
    ...{ teamId: 'team-1', actor: SYSTEM, resourceType: 'capsule', action: 'create' },
    ...{ scope: 'team', status: 'success' },
  };
  await insertEntries(
    db,
    instants.map((instant) => ({ ...stamp(entry), createdAt: at(instant) })),
  );
}

/** Where the entries lie: partition and time, in order of time. */
async function places(): Promise<string[]> {
  const { rows } = await db.execute<{ place: string; created_at: string | Date }>(
    sql`SELECT tableoid::regclass::text AS place, created_at FROM audit_log ORDER BY created_at`,
  );
  return rows.map(({ place, created_at }) => `${place} ${new Date(created_at).toISOString().slice(0, 19)}`);
}

describe('partitions', () => {
  it('are made for this month and two ahead, once', async () => {
    const names = ['audit_log_y2030m11', 'audit_log_y2030m12', 'audit_log_y2031m01'];
    expect(await tend('2030-11-30T23:59:59Z')).toEqual({ made: names, dropped: [] });
    expect(await tend('2030-11-30T23:59:59Z')).toEqual({ made: [], dropped: [] });
    expect((await tend('2030-12-01T00:00:00Z')).made).toEqual(['audit_log_y2031m02']);
  });

  it('take entries of their month, to the millisecond', async () => {
    await tend('2030-11-15T00:00:00Z');
    await insertAt('2030-11-30T23:59:59.999Z', '2030-12-01T00:00:00.000Z');
    expect(await places()).toEqual([
      'audit_log_y2030m11 2030-11-30T23:59:59',
      'audit_log_y2030m12 2030-12-01T00:00:00',
    ]);
  });

  it('take over what fell into the default one', async () => {
    await insertAt('2030-11-02T00:00:00Z', '2030-09-02T00:00:00Z', '2035-01-01T00:00:00Z');
    expect(await places()).toEqual(expect.arrayContaining(['audit_log_default 2030-11-02T00:00:00']));
    const { made } = await tend('2030-11-15T00:00:00Z');
    expect(made).toEqual(expect.arrayContaining(['audit_log_y2030m09', 'audit_log_y2035m01']));
    expect(await places()).toEqual([
      'audit_log_y2030m09 2030-09-02T00:00:00',
      'audit_log_y2030m11 2030-11-02T00:00:00',
      'audit_log_y2035m01 2035-01-01T00:00:00',
    ]);
  });

  it('go with their last entry, and no earlier', async () => {
    await tend('2030-01-10T00:00:00Z', 30);
    await insertAt('2030-01-31T23:59:59Z', '2030-02-01T00:00:00Z');
    expect((await tend('2030-03-02T23:59:59Z', 30)).dropped).toEqual([]);
    expect((await tend('2030-03-03T00:00:00Z', 30)).dropped).toEqual(['audit_log_y2030m01']);
    expect(await places()).toEqual(['audit_log_y2030m02 2030-02-01T00:00:00']);
  });

  it('go also where they are as old as what fell into the default one', async () => {
    await insertAt('2020-01-01T00:00:00Z');
    expect((await tend('2030-01-10T00:00:00Z')).dropped).toEqual(['audit_log_y2020m01']);
    expect(await places()).toEqual([]);
  });

  it('are tended by several at once, while others write', async () => {
    await insertAt('2030-11-02T00:00:00Z');
    const writing = Promise.all(
      Array.from({ length: 30 }, (_, day) => insertAt(`2030-11-${String(day + 1).padStart(2, '0')}T12:00:00Z`)),
    );
    await Promise.all([1, 2, 3].map(() => tendPatiently('2030-11-15T00:00:00Z')));
    await writing;
    await tend('2030-11-15T00:00:00Z');
    const found = await places();
    expect(found).toHaveLength(31);
    expect(found.filter((place) => !place.startsWith('audit_log_y2030m11'))).toEqual([]);
    await expect(db.execute(sql`DELETE FROM audit_log_y2030m11`)).rejects.toThrow();
  });
});

describe('a purged account', () => {
  it('leaves what it did, and nothing that tells whose it was', async () => {
    const [id, email] = ['usr-0000000000000000000000001', 'Love@Example.com'];
    await db.insert(users).values({ id, email, name: 'Lovelace', status: 'deleted' });
    const ada = { type: 'user' as const, id, name: 'Lovelace', address: '192.0.2.1' };
    const admin = { type: 'user' as const, id: 'usr-2', name: 'Grace', address: '192.0.2.2' };
    const nobody = { type: 'user' as const, name: 'unknown', address: '192.0.2.3' };
    const base = { teamId: 'team-1', scope: 'admin', status: 'success' } as const;
    await recordAudit(db, { ...base, actor: ada, resourceType: 'capsule', action: 'create', resourceId: 'cl-1' });
    await recordAudit(db, {
      ...{ ...base, actor: admin, resourceType: 'member', action: 'add', resourceId: id },
      metadata: { email, role: 'member' },
    });
    await recordAudit(db, {
      ...{ ...base, actor: nobody, resourceType: 'session', action: 'login', status: 'error' },
      metadata: { email: 'love@example.com' },
    });
    await recordAudit(db, { ...base, actor: admin, resourceType: 'member', action: 'add', metadata: { email: 'b@x' } });
    await db.transaction((tx) => anonymiseActor(tx, id));
    const rows = await db.select().from(auditLog).orderBy(auditLog.createdAt, auditLog.id);
    expect(rows).toHaveLength(4);
    expect(JSON.stringify(rows)).not.toMatch(/love|192\.0\.2\.[13]|usr-0/i);
    expect(rows).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ actorName: 'deleted-user', actorId: null, resourceId: 'cl-1' }),
        expect.objectContaining({ actorName: 'Grace', resourceId: null, metadata: { role: 'member' } }),
        expect.objectContaining({ actorName: 'Grace', metadata: { email: 'b@x' } }),
      ]),
    );
    await expect(db.delete(auditLog)).rejects.toThrow();
  });
});
