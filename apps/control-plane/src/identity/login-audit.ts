import type { Actor } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';

/** A way to log in, as sessions and the audit log name it: `password`, `passkey`, `activation` or a provider's id. */
export type LoginMethod = string;

/** Somebody logged in: one line for the platform, and one for the managers of the team that the login is for. */
export async function recordLogin(
  db: Db,
  actor: Actor,
  login: { readonly sessionId: string; readonly teamId: string | undefined; readonly method: LoginMethod },
): Promise<void> {
  const entry = {
    actor,
    resourceType: 'session',
    resourceId: login.sessionId,
    action: 'login',
    status: 'success',
    metadata: { method: login.method },
  } as const;
  await recordAudit(db, { ...entry, teamId: undefined, scope: 'platform' });
  if (login.teamId !== undefined) await recordAudit(db, { ...entry, teamId: login.teamId, scope: 'admin' });
}

/** A login that was refused. */
export interface RefusedLogin {
  /** Who tried: the account where there is one, else the address that was typed. */
  readonly actor: Actor;
  readonly method: LoginMethod;
  /** For administrators; the answer says less. */
  readonly reason: 'unknown_account' | 'wrong_password' | 'wrong_code' | 'locked' | 'not_activated' | 'deactivated';
}

export async function recordRefusedLogin(db: Db, { actor, method, reason }: RefusedLogin): Promise<void> {
  await recordAudit(db, {
    teamId: undefined,
    actor,
    resourceType: 'session',
    action: 'login',
    scope: 'platform',
    status: 'error',
    metadata: { method, reason },
  });
}
