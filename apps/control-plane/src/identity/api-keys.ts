import { createHash, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createFile, replaceFile } from '@wrenn/config/atomic-file';
import { WrennError } from '@wrenn/protocol/errors';
import { apiKeyBody, newApiKey, newId } from '@wrenn/protocol/ids';
import { eq } from 'drizzle-orm';
import type { Caller } from '../capsules/capsules.ts';
import type { Db } from '../database/database.ts';
import { apiKeys, teams } from '../database/schema.ts';

const PREFIX_LENGTH = 10;

function hashOf(keyBody: string): string {
  return createHash('sha256').update(keyBody).digest('hex');
}

/**
 * Who a key belongs to. `wrn_` and `e2b_` before the same characters are the same key.
 *
 * @throws WrennError `unauthorized`
 */
export async function authenticate(db: Db, key: string | undefined): Promise<Caller> {
  const body = key === undefined ? undefined : apiKeyBody(key.trim());
  if (body === undefined) throw new WrennError('unauthorized');
  const hash = hashOf(body);
  const [row] = await db.select().from(apiKeys).where(eq(apiKeys.keyHash, hash));
  // The index found it by a hash, so its timing tells nothing about the key; this compares all of it once more.
  if (!row || !timingSafeEqual(Buffer.from(row.keyHash), Buffer.from(hash))) throw new WrennError('unauthorized');
  return { teamId: row.teamId, actor: row.id };
}

/**
 * Makes sure that there is a team and a key to begin with: the one in the file. A file without its key in the
 * database (a new database) puts the key there; a database without the file gets one more key.
 */
export async function ensureFirstKey(db: Db, file: string): Promise<void> {
  const given = await readKey(file);
  const body = given && apiKeyBody(given);
  if (body) {
    await addKey(db, given, body);
    return;
  }
  const key = newApiKey();
  const content = `${key}\n`;
  // Of two first starts one makes the file, and both put its key into the database.
  if (given === undefined && !(await createFile(file, content, { mode: 0o600 }))) return ensureFirstKey(db, file);
  if (given !== undefined) await replaceFile(file, content, { mode: 0o600 });
  await addKey(db, key, apiKeyBody(key) ?? '');
}

async function readKey(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, 'utf8')).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

async function addKey(db: Db, key: string, body: string): Promise<void> {
  await db.transaction(async (tx) => {
    // One team whoever comes first: the lock makes the second see the first's.
    await tx.execute('LOCK TABLE teams IN SHARE ROW EXCLUSIVE MODE');
    const [found] = await tx.select().from(teams).orderBy(teams.createdAt).limit(1);
    const teamId = found?.id ?? newId('team');
    if (!found) await tx.insert(teams).values({ id: teamId, name: 'default' });
    await tx
      .insert(apiKeys)
      .values({
        id: newId('key'),
        teamId,
        name: 'first key',
        keyHash: hashOf(body),
        keyPrefix: key.slice(0, PREFIX_LENGTH),
      })
      .onConflictDoNothing({ target: apiKeys.keyHash });
  });
}
