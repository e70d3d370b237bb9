import { WrennError } from '@wrenn/protocol/errors';
import { and, asc, count, eq } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { hostTags } from '../database/host-schema.ts';
import { auditChange } from './create-host.ts';
import { getHost, lockHost } from './host-rows.ts';
import type { HostViewer } from './host-viewer.ts';

const MAX_TAGS = 50;

/** In alphabetical order. @throws WrennError `host_not_found` */
export async function listTags(db: Db, viewer: HostViewer, hostId: string): Promise<string[]> {
  await getHost(db, viewer, hostId);
  const rows = await db
    .select({ tag: hostTags.tag })
    .from(hostTags)
    .where(eq(hostTags.hostId, hostId))
    .orderBy(asc(hostTags.tag));
  return rows.map(({ tag }) => tag);
}

/** One that it has already is a success. @throws WrennError `host_not_found`; `invalid_request` beyond 50 */
export async function addTag(db: Db, viewer: HostViewer, hostId: string, tag: string): Promise<void> {
  await db.transaction(async (tx) => {
    const host = await lockHost(tx, viewer, hostId);
    const added = await tx.insert(hostTags).values({ hostId, tag }).onConflictDoNothing().returning();
    if (added.length === 0) return;
    const [{ tags } = { tags: 0 }] = await tx
      .select({ tags: count() })
      .from(hostTags)
      .where(eq(hostTags.hostId, hostId));
    if (tags > MAX_TAGS) throw new WrennError('invalid_request', { problem: `a host has at most ${MAX_TAGS} tags` });
    await auditChange(tx, viewer, host, 'add_tag', { tag });
  });
}

/** One that it has not is a success. @throws WrennError `host_not_found` */
export async function removeTag(db: Db, viewer: HostViewer, hostId: string, tag: string): Promise<void> {
  await db.transaction(async (tx) => {
    const host = await lockHost(tx, viewer, hostId);
    const removed = await tx
      .delete(hostTags)
      .where(and(eq(hostTags.hostId, hostId), eq(hostTags.tag, tag.trim().toLowerCase())))
      .returning();
    if (removed.length > 0) await auditChange(tx, viewer, host, 'remove_tag', { tag });
  });
}
