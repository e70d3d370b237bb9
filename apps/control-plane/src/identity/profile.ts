import { WrennError } from '@wrenn/protocol/errors';
import type { meSchema } from '@wrenn/protocol/rest/account';
import type { AuthBody } from '@wrenn/protocol/rest/auth';
import { and, asc, count, eq } from 'drizzle-orm';
import type { z } from 'zod';
import type { Actor } from '../access/actor.ts';
import type { SignedInUser } from '../access/principal.ts';
import type { Db } from '../database/database.ts';
import { identities, passkeys, sessions } from '../database/people-schema.ts';
import { recordOnAccount } from './account-audit.ts';
import { toAuthBody } from './auth-body.ts';
import type { LoginDeps } from './complete-login.ts';
import { type OwnTeam, requireOwnTeam } from './login-team.ts';
import { findUser, updateUser } from './user-store.ts';

/** One's own account, as it is now. @throws WrennError `unauthorized` when it is gone */
export async function describeMe(db: Db, { id, team }: SignedInUser): Promise<z.output<typeof meSchema>> {
  const user = await findUser(db, id);
  if (!user) throw new WrennError('unauthorized');
  const linked = await db
    .select({ provider: identities.provider })
    .from(identities)
    .where(eq(identities.userId, id))
    .orderBy(asc(identities.provider));
  const [own] = await db.select({ passkeys: count() }).from(passkeys).where(eq(passkeys.userId, id));
  return {
    user_id: id,
    name: user.name,
    email: user.email,
    is_admin: user.isAdmin,
    has_password: user.passwordHash !== null,
    providers: linked.map(({ provider }) => provider),
    two_factor: user.totpConfirmedAt !== null,
    passkeys: own?.passkeys ?? 0,
    team_id: team?.id ?? null,
    role: team?.role ?? null,
    created_at: user.createdAt.toISOString(),
  };
}

/** @returns a new token, which says the new name */
export async function rename(deps: LoginDeps, me: SignedInUser, actor: Actor, name: string): Promise<AuthBody> {
  await deps.db.transaction(async (tx) => {
    const user = await updateUser(tx, me.id, 'active', { name });
    if (!user) throw new WrennError('unauthorized');
    await recordOnAccount(tx, actor, me.id, 'rename', { name });
  });
  return renewAuth(deps, me, me.team);
}

/**
 * A token of the same session for another team. Name, address and role are what the database has now.
 *
 * @throws WrennError `not_found` when there is no such team, `forbidden` when the user is not in it
 */
export async function switchTeam(deps: LoginDeps, me: SignedInUser, teamId: string): Promise<AuthBody> {
  return renewAuth(deps, me, await requireOwnTeam(deps.db, me.id, teamId));
}

async function renewAuth(
  { db, secrets }: LoginDeps,
  { id, sessionId }: SignedInUser,
  team: OwnTeam | undefined,
): Promise<AuthBody> {
  const user = await findUser(db, id);
  const [session] = await db
    .select()
    .from(sessions)
    .where(and(eq(sessions.id, sessionId), eq(sessions.userId, id)));
  if (!user || !session) throw new WrennError('unauthorized');
  return toAuthBody(secrets.jwtSecret, session, user, team);
}
