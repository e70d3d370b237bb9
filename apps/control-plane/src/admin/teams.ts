import type { NumberedPage } from '@wrenn/protocol/rest/admin';
import { eq } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import type { Db } from '../database/database.ts';
import { teams } from '../database/people-schema.ts';
import { type DeleteTeamDeps, deleteTeamIn } from '../teams/delete-team.ts';
import { lockTeam } from '../teams/team-store.ts';
import { recordAdminAct } from './admin-audit.ts';
import { type Listed, listAllTeams, type TeamWithFacts } from './admin-store.ts';

export interface AdminTeamsDeps extends DeleteTeamDeps {
  readonly db: Db;
}

export async function listTeams({ db }: AdminTeamsDeps, page: NumberedPage): Promise<Listed<TeamWithFacts>> {
  return listAllTeams(db, page);
}

/** Lets a team bring hosts of its own. @throws WrennError `not_found` */
export async function enableByoc({ db }: AdminTeamsDeps, teamId: string, actor: Actor): Promise<void> {
  await db.transaction(async (tx) => {
    const { isByoc, name } = await lockTeam(tx, teamId);
    if (isByoc) return;
    await tx.update(teams).set({ isByoc: true }).where(eq(teams.id, teamId));
    await recordAdminAct(tx, { actor, resource: 'team', id: teamId, action: 'set_byoc', metadata: { name } });
  });
}

/** Deletes anybody's team as its owner could. @throws WrennError `not_found` */
export async function deleteAnyTeam(deps: AdminTeamsDeps, teamId: string, actor: Actor): Promise<void> {
  await deps.db.transaction(async (tx) => {
    const { name } = await lockTeam(tx, teamId);
    await deleteTeamIn(tx, deps, teamId, actor);
    await recordAdminAct(tx, { actor, resource: 'team', id: teamId, action: 'delete', metadata: { name } });
  });
}
