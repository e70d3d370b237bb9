import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import type { Actor } from '../access/actor.ts';
import { revokeConnections } from '../access/open-connections.ts';
import type { Db } from '../database/database.ts';
import { type User, users } from '../database/people-schema.ts';
import { findUser, findUserByEmail, lockUserByEmail, updateUser } from '../identity/user-store.ts';
import { PLATFORM_TEAM_ID } from '../teams/platform-team.ts';
import { insertMember } from '../teams/team-store.ts';
import { createDefaultTeam, pickTeam } from '../teams/teams.ts';
import { recordAdminAct } from './admin-audit.ts';
import { lockAdmins, lockOwnerlessTeam } from './admin-store.ts';

export interface NewAdmin {
  readonly email: string;
  readonly name: string;
  /** Null: a link sets one. */
  readonly passwordHash: string | null;
}

/**
 * Makes an account that is active and an administrator of the platform. The first one owns the team that the platform
 * began with.
 *
 * @throws WrennError `conflict` when the address has an account
 */
export async function createAdmin(db: Db, { email, name, passwordHash }: NewAdmin, actor: Actor): Promise<User> {
  return db.transaction(async (tx) => {
    const taken = () => new WrennError('conflict', { what: `An account of ${email}` });
    if (await lockUserByEmail(tx, email)) throw taken();
    const [user] = await tx
      .insert(users)
      .values({ id: newId('usr'), email, name, passwordHash, status: 'active', isAdmin: true })
      .onConflictDoNothing()
      .returning();
    if (!user) throw taken();
    await recordAdminAct(tx, { actor, resource: 'user', id: user.id, action: 'create', metadata: { email } });
    await recordAdminAct(tx, { actor, resource: 'user', id: user.id, action: 'grant_admin', metadata: { email } });
    await settleIn(tx, user, actor);
    return user;
  });
}

/** @throws WrennError `not_found` when no active account has the address */
export async function grantAdminByEmail(db: Db, email: string, actor: Actor): Promise<User> {
  const user = await findUserByEmail(db, email);
  if (!user) throw new WrennError('not_found', { what: `An account of ${email}` });
  return setAdmin(db, user.id, true, actor);
}

/** @throws WrennError `not_found`, `last_admin` */
export async function revokeAdminByEmail(db: Db, email: string, actor: Actor): Promise<User> {
  const user = await findUserByEmail(db, email);
  if (!user) throw new WrennError('not_found', { what: `An account of ${email}` });
  return setAdmin(db, user.id, false, actor);
}

/**
 * Makes somebody an administrator of the platform, or one no more.
 *
 * @param adminId the administrator who asks, and who must still be one; undefined: somebody at the machine does
 * @throws WrennError `not_found` when there is no such account or, to make it one, it is not active; `last_admin`
 */
export async function setAdmin(
  db: Db,
  userId: string,
  isAdmin: boolean,
  actor: Actor,
  adminId?: string,
): Promise<User> {
  return db.transaction(async (tx) => {
    const admins = await lockAdmins(tx);
    if (adminId !== undefined && !admins.some(({ id }) => id === adminId)) throw new WrennError('forbidden');
    const before = await findUser(tx, userId);
    if (!before || (isAdmin && before.status !== 'active')) {
      throw new WrennError('not_found', { what: `The active user ${userId}` });
    }
    if (before.isAdmin === isAdmin) return before;
    if (!isAdmin && admins.every(({ id }) => id === userId)) throw new WrennError('last_admin');
    const user = (await updateUser(tx, userId, before.status, { isAdmin })) ?? before;
    const action = isAdmin ? 'grant_admin' : 'revoke_admin';
    await recordAdminAct(tx, { actor, resource: 'user', id: userId, action, metadata: { email: user.email } });
    if (isAdmin) await settleIn(tx, user, actor);
    else await revokeConnections(tx, { userId, teamId: PLATFORM_TEAM_ID });
    return user;
  });
}

/** Somebody has to own what the platform began with; who owns nothing yet gets a team. */
async function settleIn(tx: Db, user: User, actor: Actor): Promise<void> {
  const team = await lockOwnerlessTeam(tx);
  if (team) {
    await insertMember(tx, team.id, user.id, 'owner');
    await recordAdminAct(tx, {
      ...{
        actor,
        resource: 'team',
        id: team.id,
        action: 'give_owner',
        metadata: { owner: user.id, email: user.email },
      },
    });
  } else if (!(await pickTeam(tx, user.id))) {
    await createDefaultTeam(tx, user, actor);
  }
}
