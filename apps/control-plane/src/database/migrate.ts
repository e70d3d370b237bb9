import { createHash } from 'node:crypto';
import type { Client, ClientBase } from 'pg';
import { first } from './migrations/0001-first.ts';
import { sleep } from './migrations/0002-sleep.ts';
import { people } from './migrations/0003-people.ts';
import { audit } from './migrations/0004-audit.ts';
import { channels } from './migrations/0005-channels.ts';
import { mail } from './migrations/0006-mail.ts';
import { requests } from './migrations/0007-requests.ts';
import { platformTeam } from './migrations/0008-platform-team.ts';
import { hosts } from './migrations/0009-hosts.ts';
import { usage } from './migrations/0010-usage.ts';
import { metrics } from './migrations/0011-metrics.ts';

/** In order, for ever: a migration that was applied anywhere is never changed, only followed by another. */
const MIGRATIONS: readonly { readonly name: string; readonly sql: string }[] = [
  { name: 'first', sql: first },
  { name: 'sleep', sql: sleep },
  { name: 'people', sql: people },
  { name: 'audit', sql: audit },
  { name: 'channels', sql: channels },
  { name: 'mail', sql: mail },
  { name: 'requests', sql: requests },
  { name: 'platform-team', sql: platformTeam },
  { name: 'hosts', sql: hosts },
  { name: 'usage', sql: usage },
  { name: 'metrics', sql: metrics },
];

/** What `migrate` brings the database to. */
export const SCHEMA_VERSION = MIGRATIONS.length;

/** Advisory lock that whoever migrates holds. Any constant; it only must not be used for something else. */
const MIGRATION_LOCK = 7_366_510_420_915;

/**
 * Brings the database to the newest schema. Of several at once one does the work and the others wait for it.
 *
 * @param client a connection of its own: the lock belongs to it
 * @returns names of the migrations that were applied now
 * @throws Error when the database is newer than this program, or a migration was changed after it was applied
 */
export async function migrate(client: Client): Promise<string[]> {
  await client.query('SELECT pg_advisory_lock($1)', [MIGRATION_LOCK]);
  try {
    await client.query(`CREATE TABLE IF NOT EXISTS schema_migrations (
      version integer PRIMARY KEY,
      name text NOT NULL,
      sha256 text NOT NULL,
      applied_at timestamptz NOT NULL DEFAULT now()
    )`);
    const applied = await readApplied(client);
    const done: string[] = [];
    for (const [index, migration] of MIGRATIONS.entries()) {
      const version = index + 1;
      const sha256 = createHash('sha256').update(migration.sql).digest('hex');
      const before = applied.get(version);
      if (before === sha256) continue;
      if (before !== undefined)
        throw new Error(`Migration ${version} (${migration.name}) was changed after it was applied.`);
      await applyOne(client, version, migration, sha256);
      done.push(migration.name);
    }
    return done;
  } finally {
    await client.query('SELECT pg_advisory_unlock($1)', [MIGRATION_LOCK]);
  }
}

async function readApplied(client: ClientBase): Promise<Map<number, string>> {
  const { rows } = await client.query<{ version: number; sha256: string }>(
    'SELECT version, sha256 FROM schema_migrations',
  );
  const newest = Math.max(0, ...rows.map((row) => row.version));
  if (newest > MIGRATIONS.length) {
    throw new Error(
      `The database has schema version ${newest}, and this program knows ${MIGRATIONS.length}: it belongs to a newer ` +
        'version of Wrenn. Start that one.',
    );
  }
  return new Map(rows.map((row) => [row.version, row.sha256]));
}

async function applyOne(
  client: ClientBase,
  version: number,
  migration: { name: string; sql: string },
  sha256: string,
): Promise<void> {
  await client.query('BEGIN');
  try {
    await client.query(migration.sql);
    await client.query('INSERT INTO schema_migrations (version, name, sha256) VALUES ($1, $2, $3)', [
      version,
      migration.name,
      sha256,
    ]);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  }
}
