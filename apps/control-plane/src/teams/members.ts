import { WrennError } from '@wrenn/protocol/errors';
import type { Actor } from '../access/actor.ts';
import { requireAllowed } from '../access/in-team.ts';
import { revokeConnections } from '../access/open-connections.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import { publishEvent } from '../events/publish.ts';
import { recordAddition } from './accept-invitation.ts';
import { revokeInvitations } from './invitation-store.ts';
import { inviteIn } from './invitations.ts';
import {
  deleteMember,
  findMember,
  findTeammate,
  insertMember,
  lockTeam,
  type Member,
  revokeOwnKeys,
  updateRole,
} from './team-store.ts';
import type { Person, TeamsDeps } from './teams.ts';

const DAY_MS = 24 * 60 * 60 * 1000;
const INVITATION_LIFETIME_MS = 7 * DAY_MS;

/** What became of an address that was to be added. */
export type Addition =
  | { readonly status: 'member'; readonly member: Member }
  | { readonly status: 'invited'; readonly invitationId: string };

/**
 * Adds somebody by their address. People whom the caller knows from another team come in at once; everybody else is
 * invited, with an account or without one, so that nobody can find out by this which addresses have accounts.
 *
 * @throws WrennError `insufficient_role`, `rate_limited`; `conflict` when the address is a member's
 */
export async function addMember(
  deps: TeamsDeps,
  caller: Person,
  teamId: string,
  { email, role }: { readonly email: string; readonly role: 'admin' | 'member' },
  actor: Actor,
): Promise<Addition> {
  return deps.db.transaction(async (tx) => {
    const team = await lockTeam(tx, teamId);
    await requireAllowed(tx, caller.id, teamId, 'team.members');
    const known = await findTeammate(tx, caller.id, email);
    if (!known) {
      const wanted = { email, role, lifetimeMs: INVITATION_LIFETIME_MS };
      const { made } = await inviteIn(tx, deps, { inviter: caller, team, actor }, wanted);
      return { status: 'invited', invitationId: made.invitation.id };
    }
    if (!(await insertMember(tx, teamId, known.id, role))) {
      throw new WrennError('conflict', { what: `The member ${email}` });
    }
    await revokeInvitations(tx, teamId, { email });
    await recordAddition(tx, { teamId, user: known, role, actor });
    await deps.mail.send(tx, {
      ...{ to: known.email, kind: 'added_to_team', name: known.name, teamName: team.name, actorName: caller.name },
    });
    return { status: 'member', member: await requireMember(tx, teamId, known.id) };
  });
}

/** @throws WrennError `insufficient_role`, `not_found`, `owner_immutable` */
export async function changeRole(
  { db }: TeamsDeps,
  callerId: string,
  teamId: string,
  { userId, role }: { readonly userId: string; readonly role: 'admin' | 'member' },
  actor: Actor,
): Promise<void> {
  await db.transaction(async (tx) => {
    await lockTeam(tx, teamId);
    await requireAllowed(tx, callerId, teamId, 'team.members');
    const member = await requireMember(tx, teamId, userId);
    if (member.role === 'owner') throw new WrennError('owner_immutable');
    if (member.role === role) return;
    await updateRole(tx, teamId, userId, role);
    // Who may invite no more has not invited anybody.
    if (role === 'member') await revokeInvitations(tx, teamId, { invitedBy: userId });
    const data = { email: member.email, before: member.role, role };
    await recordAudit(tx, {
      ...{ teamId, actor, resourceType: 'member', resourceId: userId, action: 'role_update' },
      ...{ scope: 'admin', status: 'success', metadata: data },
    });
    await publishEvent(tx, {
      ...{ type: 'member.role_changed', teamId, actor, resource: { type: 'member', id: userId }, data },
    });
  });
}

/** @throws WrennError `insufficient_role`, `not_found`, `owner_immutable` */
export async function removeMember({ db }: TeamsDeps, callerId: string, teamId: string, userId: string, actor: Actor) {
  await db.transaction(async (tx) => {
    await lockTeam(tx, teamId);
    await requireAllowed(tx, callerId, teamId, 'team.members');
    await endMembership(tx, teamId, userId, 'remove', actor);
  });
}

/** @throws WrennError `owner_immutable` */
export async function leaveTeam({ db }: TeamsDeps, userId: string, teamId: string, actor: Actor): Promise<void> {
  await db.transaction(async (tx) => {
    await lockTeam(tx, teamId);
    await endMembership(tx, teamId, userId, 'leave', actor);
  });
}

/** Their own keys for the team end too, and stay so when they come back. */
async function endMembership(tx: Db, teamId: string, userId: string, action: 'remove' | 'leave', actor: Actor) {
  const member = await requireMember(tx, teamId, userId);
  if (member.role === 'owner') throw new WrennError('owner_immutable');
  await deleteMember(tx, teamId, userId);
  await revokeOwnKeys(tx, teamId, userId);
  await revokeInvitations(tx, teamId, { invitedBy: userId });
  const data = { email: member.email, name: member.name, role: member.role };
  await recordAudit(tx, {
    ...{ teamId, actor, resourceType: 'member', resourceId: userId, action },
    ...{ scope: 'admin', status: 'success', metadata: data },
  });
  await publishEvent(tx, { type: 'member.removed', teamId, actor, resource: { type: 'member', id: userId }, data });
  await revokeConnections(tx, { teamId, userId });
}

async function requireMember(db: Db, teamId: string, userId: string): Promise<Member> {
  const member = await findMember(db, teamId, userId);
  if (!member) throw new WrennError('not_found', { what: `The member ${userId}` });
  return member;
}
