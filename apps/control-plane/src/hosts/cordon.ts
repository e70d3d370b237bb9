import { eq, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { hosts } from '../database/host-schema.ts';
import { auditChange } from './create-host.ts';
import { announceHost, lockHost } from './host-rows.ts';
import type { HostViewer } from './host-viewer.ts';

/** Keeps new capsules off a host, or lets them come again. What is on it goes on. @throws WrennError `host_not_found` */
export async function setCordoned(db: Db, viewer: HostViewer, id: string, isCordoned: boolean): Promise<void> {
  await db.transaction(async (tx) => {
    const host = await lockHost(tx, viewer, id);
    if ((host.cordonedAt !== null) === isCordoned) return;
    const cordonedAt = isCordoned ? sql`now()` : null;
    await tx.update(hosts).set({ cordonedAt, updatedAt: sql`now()` }).where(eq(hosts.id, id));
    await auditChange(tx, viewer, host, isCordoned ? 'cordon' : 'uncordon');
    await announceHost(tx, id);
  });
}
