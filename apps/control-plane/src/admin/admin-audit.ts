import type { Actor } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';

/** What administrators do to users and teams. */
export interface AdminAct {
  readonly actor: Actor;
  readonly resource: 'user' | 'team' | 'mail';
  readonly id?: string;
  readonly action: string;
  readonly metadata?: Record<string, unknown>;
}

/** One line for the platform's administrators. */
export async function recordAdminAct(tx: Db, { actor, resource, id, action, metadata = {} }: AdminAct): Promise<void> {
  await recordAudit(tx, {
    ...{ teamId: undefined, actor, resourceType: resource, resourceId: id, action, metadata },
    ...{ scope: 'platform', status: 'success' },
  });
}
