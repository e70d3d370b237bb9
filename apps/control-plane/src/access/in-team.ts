import { WrennError } from '@wrenn/protocol/errors';
import { and, eq, isNull } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { teamMembers, teams } from '../database/people-schema.ts';
import { PERMISSIONS, type Permission } from './permissions.ts';
import type { KeyHolder, SignedInUser } from './principal.ts';

/**
 * Whoever asks as a member of a team that the request names, which need not be the one of their token.
 *
 * @throws WrennError `not_found` when they are not in it; which teams there are is nobody's business
 */
export async function asMemberOf<P extends SignedInUser | KeyHolder>(
  db: Db,
  principal: P,
  teamId: string,
): Promise<P | SignedInUser> {
  if (principal.team?.id === teamId) return principal;
  const role = principal.type === 'user' ? await roleIn(db, principal.id, teamId) : undefined;
  if (principal.type !== 'user' || !role) throw new WrennError('not_found', { what: `The team ${teamId}` });
  return { ...principal, team: { id: teamId, role } };
}

/**
 * Asks once more within the transaction that makes a change, when the team is locked: the role may have been another
 * when the request came.
 *
 * @throws WrennError `not_found`, `insufficient_role`
 */
export async function requireAllowed(tx: Db, userId: string, teamId: string, permission: Permission): Promise<void> {
  const rule = PERMISSIONS[permission];
  const role = await roleIn(tx, userId, teamId);
  if (!role) throw new WrennError('not_found', { what: `The team ${teamId}` });
  if (rule.for !== 'team' && rule.for !== 'platform-or-team') throw new Error(`${permission} is not given by roles`);
  if (!rule.roles.some((each) => each === role))
    throw new WrennError('insufficient_role', { needed: rule.roles.join(' or '), role });
}

async function roleIn(db: Db, userId: string, teamId: string) {
  const [row] = await db
    .select({ role: teamMembers.role })
    .from(teamMembers)
    .innerJoin(teams, and(eq(teams.id, teamMembers.teamId), isNull(teams.deletedAt)))
    .where(and(eq(teamMembers.teamId, teamId), eq(teamMembers.userId, userId)));
  return row?.role;
}
