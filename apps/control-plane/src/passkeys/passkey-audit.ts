import type { Actor } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import type { Passkey } from './passkey-store.ts';

export async function recordOnPasskey(
  tx: Db,
  actor: Actor,
  { id, name }: Passkey,
  action: 'create' | 'rename' | 'delete',
): Promise<void> {
  const resource = { resourceType: 'passkey', resourceId: id, metadata: { name } };
  await recordAudit(tx, { teamId: undefined, actor, ...resource, action, scope: 'platform', status: 'success' });
}
