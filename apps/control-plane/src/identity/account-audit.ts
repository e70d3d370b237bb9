import type { AUDIT_STATUSES } from '@wrenn/protocol/rest/audit';
import type { Actor } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import type { User } from '../database/people-schema.ts';

/** What is done to accounts. */
export type AccountAction =
  | 'sign_up'
  | 'activate'
  | 'rename'
  | 'password_set'
  | 'password_change'
  | 'password_reset_request'
  | 'password_reset'
  | 'logout'
  | 'session_revoke'
  | 'delete'
  | 'purge';

/** One line for the platform's administrators, about an account. */
export async function recordOnAccount(
  db: Db,
  actor: Actor,
  userId: string | undefined,
  action: AccountAction,
  metadata: Record<string, unknown> = {},
  status: (typeof AUDIT_STATUSES)[number] = 'success',
): Promise<void> {
  const resource = { resourceType: 'user', resourceId: userId };
  await recordAudit(db, { teamId: undefined, actor, ...resource, action, scope: 'platform', status, metadata });
}

/** A person who acts for themselves before they are logged in. */
export function as(user: Pick<User, 'id' | 'name'>, someone: Actor): Actor {
  return { ...someone, id: user.id, name: user.name };
}
