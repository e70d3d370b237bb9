import { WrennError } from '@wrenn/protocol/errors';
import { and, eq, isNull } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import { revokeConnections } from '../access/open-connections.ts';
import type { SignedInUser } from '../access/principal.ts';
import type { Db } from '../database/database.ts';
import { apiKeys } from '../database/people-schema.ts';
import { deleteTeamIn, listOwnedTeams } from '../teams/delete-team.ts';
import { lockTeam } from '../teams/team-store.ts';
import { revokeTokens } from '../tokens/one-time-tokens.ts';
import { recordOnAccount } from './account-audit.ts';
import type { AccountDeps } from './account-deps.ts';
import { revokeSessions } from './sessions.ts';
import { isSameAddress, lockUser, updateUser } from './user-store.ts';

const DAY_MS = 24 * 3_600_000;
/** An administrator can bring a deleted account back for so long; then it is purged. */
export const GRACE_MS = 15 * DAY_MS;

/**
 * Deletes one's own account: teams that nobody else is in, keys of one's own and sessions end at once; the rest is
 * purged after the time of grace.
 *
 * @param confirmation the address of the account
 * @throws WrennError `invalid_request`, `owns_team_with_members`
 */
export async function deleteAccount(
  deps: AccountDeps,
  me: SignedInUser,
  actor: Actor,
  confirmation: string,
): Promise<void> {
  if (!isSameAddress(confirmation.trim(), me.email))
    throw new WrennError('invalid_request', { problem: 'confirmation: must be the e-mail address of the account' });
  await deps.db.transaction(async (tx) => {
    // Before its teams are listed: nobody can pass one on to it any more, nor can it make one.
    await lockUser(tx, me.id);
    const deletedTeams = await deleteOwnTeams(tx, deps, me.id, actor);
    const deletedAt = new Date();
    const user = await updateUser(tx, me.id, 'active', { status: 'deleted', deletedAt });
    if (!user) throw new WrennError('unauthorized');
    await tx
      .update(apiKeys)
      .set({ revokedAt: deletedAt })
      .where(and(eq(apiKeys.userId, me.id), isNull(apiKeys.revokedAt)));
    await revokeTokens(tx, 'password_reset', me.id);
    await revokeTokens(tx, 'two_factor', me.id);
    await revokeSessions(tx, me.id);
    // What is open with those keys.
    await revokeConnections(tx, { userId: me.id });
    const expiresAt = new Date(deletedAt.getTime() + GRACE_MS);
    await deps.mail.send(tx, { to: user.email, kind: 'deletion_scheduled', name: user.name, expiresAt });
    await recordOnAccount(tx, actor, me.id, 'delete', { deleted_teams: deletedTeams });
  });
}

/** @returns ids of the teams that ended */
async function deleteOwnTeams(tx: Db, deps: AccountDeps, userId: string, actor: Actor): Promise<string[]> {
  const ids = (await listOwnedTeams(tx, userId)).map(({ id }) => id).toSorted();
  // Nobody can join, and none can be passed on to others, once they are locked; what was so before is seen now.
  for (const id of ids) await lockTeam(tx, id);
  const owned = await listOwnedTeams(tx, userId);
  const shared = owned.find(({ others }) => others > 0);
  if (shared) throw new WrennError('owns_team_with_members', { team: shared.name });
  for (const { id } of owned) await deleteTeamIn(tx, deps, id, actor);
  return owned.map(({ id }) => id);
}
