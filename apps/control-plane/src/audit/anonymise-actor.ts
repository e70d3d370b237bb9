import { sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { allowAuditChanges } from './partitions.ts';

/** What stands in the place of a person whose account was purged. */
export const PURGED_ACTOR = 'deleted-user';

/**
 * Takes everything out of the audit log that tells who a person was: as an actor, and as somebody whom others changed.
 * That it happened stays. In the transaction that removes the account, as long as its row is there.
 */
export async function anonymiseActor(tx: Db, userId: string): Promise<void> {
  await allowAuditChanges(tx);
  await tx.execute(sql`
    UPDATE audit_log SET actor_id = NULL, actor_name = ${PURGED_ACTOR}, address = NULL
    WHERE actor_type = 'user' AND actor_id = ${userId}`);
  await tx.execute(sql`
    UPDATE audit_log SET
      resource_id = nullif(resource_id, ${userId}),
      metadata = metadata - 'email' - 'name' - 'user_id',
      address = CASE WHEN actor_type = 'user' AND actor_id IS NULL THEN NULL ELSE address END
    WHERE resource_id = ${userId} OR metadata ->> 'user_id' = ${userId}
      OR lower(metadata ->> 'email') = (SELECT lower(email) FROM users WHERE id = ${userId})`);
}
