import { and, eq, isNull, sql } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import { requireAllowed } from '../access/in-team.ts';
import { revokeConnections } from '../access/open-connections.ts';
import { recordAudit } from '../audit/record.ts';
import { channels } from '../database/channel-schema.ts';
import type { Db } from '../database/database.ts';
import { apiKeys, teamMembers, teams } from '../database/people-schema.ts';
import { publishEvent } from '../events/publish.ts';
import type { Jobs } from '../jobs/jobs.ts';
import { CLEAR_TEAMS_QUEUE } from './clear-teams.ts';
import { revokeInvitations } from './invitation-store.ts';
import { lockTeam } from './team-store.ts';

export interface DeleteTeamDeps {
  readonly jobs: Pick<Jobs, 'enqueue'>;
}

/**
 * Deletes a team, within the caller's transaction: from its commit on nothing of the team authenticates, counts or can
 * be made. A job then ends its capsules and removes its snapshots.
 *
 * @throws WrennError `not_found` when it is deleted already
 */
export async function deleteTeamIn(tx: Db, { jobs }: DeleteTeamDeps, teamId: string, actor: Actor): Promise<void> {
  const { name } = await lockTeam(tx, teamId);
  const now = new Date();
  await tx.update(teams).set({ deletedAt: now }).where(eq(teams.id, teamId));
  await tx
    .update(apiKeys)
    .set({ revokedAt: now })
    .where(and(eq(apiKeys.teamId, teamId), isNull(apiKeys.revokedAt)));
  await revokeInvitations(tx, teamId);
  await tx.update(teamMembers).set({ isDefault: false }).where(eq(teamMembers.teamId, teamId));
  await recordAudit(tx, {
    ...{ teamId, actor, resourceType: 'team', resourceId: teamId, action: 'delete' },
    ...{ scope: 'team', status: 'success', metadata: { name } },
  });
  await publishEvent(tx, {
    type: 'team.deleted',
    teamId,
    actor,
    resource: { type: 'team', id: teamId },
    data: { name },
  });
  // They hear that, and nothing that comes after it.
  await tx.update(channels).set({ events: [] }).where(eq(channels.teamId, teamId));
  await revokeConnections(tx, { teamId });
  await jobs.enqueue(tx, CLEAR_TEAMS_QUEUE, {}, { singletonKey: 'all' });
}

/**
 * The same in a transaction of its own.
 *
 * @param ownerId who must own it when it is deleted; undefined: the platform decides
 * @throws WrennError also `insufficient_role`
 */
export async function deleteTeam(
  deps: DeleteTeamDeps & { readonly db: Db },
  teamId: string,
  actor: Actor,
  ownerId?: string,
): Promise<void> {
  await deps.db.transaction(async (tx) => {
    await lockTeam(tx, teamId);
    if (ownerId !== undefined) await requireAllowed(tx, ownerId, teamId, 'team.own');
    await deleteTeamIn(tx, deps, teamId, actor);
  });
}

/** Live teams that a user owns, with how many others are in each. */
export async function listOwnedTeams(db: Db, userId: string): Promise<{ id: string; name: string; others: number }[]> {
  return db
    .select({
      id: teams.id,
      name: teams.name,
      others: sql<number>`(SELECT count(*)::int - 1 FROM team_members all_of_it WHERE all_of_it.team_id = ${teams.id})`,
    })
    .from(teams)
    .innerJoin(teamMembers, and(eq(teamMembers.teamId, teams.id), eq(teamMembers.role, 'owner')))
    .where(and(eq(teamMembers.userId, userId), isNull(teams.deletedAt)));
}
