import { readFile } from 'node:fs/promises';
import { createFile, replaceFile } from '@wrenn/config/atomic-file';
import { apiKeyBody, newApiKey, newId } from '@wrenn/protocol/ids';
import { and, isNull, ne } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { apiKeys, teams } from '../database/people-schema.ts';
import { PLATFORM_TEAM_ID } from '../teams/platform-team.ts';
import { newSlug } from '../teams/slug.ts';
import { keptOf } from './new-key.ts';

/**
 * Makes sure that there is a team and a key to begin with: the one in the file. A file without its key in the
 * database (a new database) puts the key there; a database without the file gets one more key.
 */
export async function ensureFirstKey(db: Db, file: string): Promise<void> {
  const given = await readKey(file);
  if (given !== undefined && apiKeyBody(given) !== undefined) {
    await addKey(db, given);
    return;
  }
  const key = newApiKey();
  const content = `${key}\n`;
  // Of two first starts one makes the file, and both put its key into the database.
  if (given === undefined && !(await createFile(file, content, { mode: 0o600 }))) return ensureFirstKey(db, file);
  if (given !== undefined) await replaceFile(file, content, { mode: 0o600 });
  await addKey(db, key);
}

async function readKey(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, 'utf8')).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

async function addKey(db: Db, key: string): Promise<void> {
  await db.transaction(async (tx) => {
    // One team whoever comes first: the lock makes the second see the first's.
    await tx.execute('LOCK TABLE teams IN SHARE ROW EXCLUSIVE MODE');
    const [found] = await tx
      .select()
      .from(teams)
      .where(and(isNull(teams.deletedAt), ne(teams.id, PLATFORM_TEAM_ID)))
      .orderBy(teams.createdAt)
      .limit(1);
    const teamId = found?.id ?? newId('team');
    if (!found) await tx.insert(teams).values({ id: teamId, name: 'default', slug: newSlug() });
    await tx
      .insert(apiKeys)
      .values({ id: newId('key'), teamId, name: 'first key', ...keptOf(key) })
      .onConflictDoNothing({ target: apiKeys.keyHash });
  });
}
