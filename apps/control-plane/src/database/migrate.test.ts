import { tmpdir } from 'node:os';
import { getTableConfig, PgTable } from 'drizzle-orm/pg-core';
import { Client } from 'pg';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../testing/test-database.ts';
import * as auditSchema from './audit-schema.ts';
import * as channelSchema from './channel-schema.ts';
import { openDatabase } from './database.ts';
import * as hostSchema from './host-schema.ts';
import * as mailSchema from './mail-schema.ts';
import * as metricsSchema from './metrics-schema.ts';
import { migrate } from './migrate.ts';
import * as peopleSchema from './people-schema.ts';
import * as requestSchema from './request-schema.ts';
import * as schema from './schema.ts';
import * as usageSchema from './usage-schema.ts';

let database: TestDatabase;
const clients: Client[] = [];
beforeEach(async () => {
  database = await createTestDatabase();
});
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.end()));
  await database[Symbol.asyncDispose]();
});

async function connect(): Promise<Client> {
  const client = new Client(database.url);
  await client.connect();
  clients.push(client);
  return client;
}

describe('migrate', () => {
  it('does its work once when several start at the same instant', async () => {
    const several = await Promise.all([connect(), connect(), connect()]);
    const done = await Promise.all(several.map(migrate));
    expect(done.flat()).toEqual([
      ...['first', 'sleep', 'people', 'audit', 'channels', 'mail', 'requests', 'platform-team'],
      ...['hosts', 'usage', 'metrics'],
    ]);
    const { rows } = await several[0].query('SELECT version FROM schema_migrations ORDER BY version');
    expect(rows).toEqual(done.flat().map((_, index) => ({ version: index + 1 })));
  });

  it('lets two control planes open one empty database', async () => {
    const log = pino({ level: 'silent' });
    const open = () => openDatabase({ url: database.url, dir: tmpdir(), log });
    const opened = await Promise.all([open(), open()]);
    for (const each of opened) await each.check(AbortSignal.timeout(5000));
    await Promise.all(opened.map((each) => each[Symbol.asyncDispose]()));
  });

  it('makes the tables that the schema describes', async () => {
    const client = await connect();
    await migrate(client);
    const schemas = [
      ...[schema, peopleSchema, auditSchema, channelSchema, mailSchema, requestSchema],
      ...[hostSchema, usageSchema, metricsSchema],
    ];
    const tables = schemas.flatMap((module) => Object.values(module)).filter((value) => value instanceof PgTable);
    expect(tables.length).toBeGreaterThan(15);
    for (const table of tables.map(getTableConfig)) {
      const { rows } = await client.query(
        `SELECT attname AS name, CASE WHEN attnotnull THEN 'NO' ELSE 'YES' END AS nullable,
           format_type(atttypid, atttypmod) AS type
         FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped`,
        [table.name],
      );
      const wanted = table.columns.map((column) => ({
        name: column.name,
        nullable: column.notNull ? 'NO' : 'YES',
        // Drizzle writes a space before the precision.
        type: column.getSQLType().replace(' (', '('),
      }));
      const byName = (a: { name: string }, b: { name: string }) => a.name.localeCompare(b.name);
      expect(rows.sort(byName), table.name).toEqual(wanted.sort(byName));
    }
  });

  it('refuses a database of a newer program, and a migration that was changed', async () => {
    const client = await connect();
    await migrate(client);
    await client.query("UPDATE schema_migrations SET sha256 = 'other'");
    await expect(migrate(client)).rejects.toThrow(/was changed after it was applied/);
    await client.query("INSERT INTO schema_migrations (version, name, sha256) VALUES (99, 'future', '')");
    await expect(migrate(client)).rejects.toThrow(/newer version of Wrenn/);
  });
});
