import { newId } from '@wrenn/protocol/ids';
import { eq, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type HOST_STATUSES, hosts } from '../database/schema.ts';

type HostStatus = (typeof HOST_STATUSES)[number];

/** The id of the host at this address; its row is made at the first call. */
export async function ensureHostRow(db: Db, address: string): Promise<string> {
  const [made] = await db
    .insert(hosts)
    .values({ id: newId('host'), address, status: 'pending' })
    .onConflictDoUpdate({ target: hosts.address, set: { address } })
    .returning({ id: hosts.id });
  if (!made) throw new Error('INSERT gave no row');
  return made.id;
}

export async function recordHostOnline(db: Db, id: string, agentVersion: string): Promise<void> {
  await db.update(hosts).set({ status: 'online', agentVersion, lastSeenAt: sql`now()` }).where(eq(hosts.id, id));
}

export async function recordHostStatus(db: Db, id: string, status: HostStatus): Promise<void> {
  await db.update(hosts).set({ status }).where(eq(hosts.id, id));
}
