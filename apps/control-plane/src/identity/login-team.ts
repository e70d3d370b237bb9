import { WrennError } from '@wrenn/protocol/errors';
import type { TeamRole } from '@wrenn/protocol/rest/teams';
import { and, eq, isNull } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { teamMembers, teams } from '../database/people-schema.ts';

/** The team that a token is for. */
export interface OwnTeam {
  readonly id: string;
  readonly role: TeamRole;
}

/**
 * A team that lives, for one of its members.
 *
 * @throws WrennError `not_found` when it does not live, `forbidden` when the user is not in it
 */
export async function requireOwnTeam(db: Db, userId: string, id: string): Promise<OwnTeam> {
  const [team] = await db
    .select({ role: teamMembers.role })
    .from(teams)
    .leftJoin(teamMembers, and(eq(teamMembers.teamId, teams.id), eq(teamMembers.userId, userId)))
    .where(and(eq(teams.id, id), isNull(teams.deletedAt)));
  if (!team) throw new WrennError('not_found', { what: `The team ${id}` });
  if (!team.role) throw new WrennError('forbidden');
  return { id, role: team.role };
}
