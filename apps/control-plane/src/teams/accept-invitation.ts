import { WrennError } from '@wrenn/protocol/errors';
import type { TeamRole } from '@wrenn/protocol/rest/teams';
import type { Actor } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import { publishEvent } from '../events/publish.ts';
import { findInvitation, takeInvitation } from './invitation-store.ts';
import { findMember, insertMember, lockTeam } from './team-store.ts';
import type { Person } from './teams.ts';

/** Who accepts which invitation. */
export interface Acceptance {
  readonly token: string;
  readonly user: Person;
  readonly actor: Actor;
}

/**
 * Brings a person into the team that invited them. An invitation works once; who accepts theirs again is in the team
 * already. It becomes their default team when it is their only one.
 *
 * That somebody has the token does not prove that the address of the invitation is theirs: who invites is shown the
 * link too.
 *
 * @throws WrennError `invalid_token`; `invitation_for_other` when it is for another address
 */
export async function acceptInvitation(
  tx: Db,
  { token, user, actor }: Acceptance,
): Promise<{ readonly teamId: string; readonly role: TeamRole }> {
  const found = await findInvitation(tx, token);
  if (!found) throw new WrennError('invalid_token');
  const { id, teamId, email, role } = found.invitation;
  if (email !== null && email.toLowerCase() !== user.email.toLowerCase()) throw new WrennError('invitation_for_other');
  await lockTeam(tx, teamId).catch((cause: unknown) => {
    // The team was deleted, and its invitations with it.
    throw cause instanceof WrennError ? new WrennError('invalid_token', {}, { cause }) : cause;
  });
  const before = await findMember(tx, teamId, user.id);
  if (before) return { teamId, role: before.role };
  if (!(await takeInvitation(tx, id, user.id))) throw new WrennError('invalid_token');
  await insertMember(tx, teamId, user.id, role);
  await recordAddition(tx, { teamId, user, role, actor, invitationId: id });
  return { teamId, role };
}

/** Tells of a new member, in the audit log and to channels. */
export async function recordAddition(
  tx: Db,
  {
    teamId,
    user,
    role,
    actor,
    invitationId,
  }: {
    readonly teamId: string;
    readonly user: Person;
    readonly role: TeamRole;
    readonly actor: Actor;
    readonly invitationId?: string;
  },
): Promise<void> {
  const data = { email: user.email, name: user.name, role };
  await recordAudit(tx, {
    ...{ teamId, actor, resourceType: 'member', resourceId: user.id, action: 'add', scope: 'admin', status: 'success' },
    metadata: invitationId === undefined ? data : { ...data, invitation: invitationId },
  });
  await publishEvent(tx, { type: 'member.added', teamId, actor, resource: { type: 'member', id: user.id }, data });
}
