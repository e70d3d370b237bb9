import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import type { ArrayQuery } from '@wrenn/protocol/rest/paging';
import type { InvitationBody } from '@wrenn/protocol/rest/teams';
import type { Actor } from '../access/actor.ts';
import { requireAllowed } from '../access/in-team.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import type { Team } from '../database/people-schema.ts';
import { publishEvent } from '../events/publish.ts';
import type { Page } from '../http/cursor.ts';
import { hashToken, newToken } from '../tokens/one-time-tokens.ts';
import {
  countInvitationsSince,
  countInvitationsTo,
  findPendingInvitation,
  insertInvitation,
  invitationStatus,
  listPendingInvitations,
  lockInvitations,
  type NamedInvitation,
  revokeInvitations,
} from './invitation-store.ts';
import { isMemberAddress, lockTeam } from './team-store.ts';
import type { Person, TeamsDeps } from './teams.ts';

const HOUR_MS = 60 * 60 * 1000;
/** How many invitations a team, or a person in all their teams, may make in an hour. */
const HOURLY_LIMIT = 60;
/** How many mails of invitations reach one address in an hour, whoever sends them. */
const HOURLY_ADDRESS_LIMIT = 5;

/** The page that takes an invitation, below the public URL. */
export function invitationPath(token: string): string {
  return `/invite?token=${token}`;
}

export interface NewInvitation {
  /** Undefined: whoever has the link first. */
  readonly email: string | undefined;
  readonly role: 'admin' | 'member';
  readonly lifetimeMs: number;
}

/**
 * Makes an invitation, which works once. With an address it is mailed there, replaces older ones to it, and only that
 * account can accept it.
 *
 * @throws WrennError `insufficient_role`, `rate_limited`; `conflict` when the address is a member's
 */
export async function inviteToTeam(
  deps: TeamsDeps,
  inviter: Person,
  teamId: string,
  wanted: NewInvitation,
  actor: Actor,
): Promise<{ readonly made: NamedInvitation; readonly token: string }> {
  return deps.db.transaction(async (tx) => {
    const team = await lockTeam(tx, teamId);
    await requireAllowed(tx, inviter.id, teamId, 'team.members');
    return inviteIn(tx, deps, { inviter, team, actor }, wanted);
  });
}

/** The same in a transaction that has locked the team and asked for the inviter's role. */
export async function inviteIn(
  tx: Db,
  { mail }: TeamsDeps,
  { inviter, team, actor }: { readonly inviter: Person; readonly team: Team; readonly actor: Actor },
  { email, role, lifetimeMs }: NewInvitation,
): Promise<{ readonly made: NamedInvitation; readonly token: string }> {
  const teamId = team.id;
  await requireFewInvitations(tx, teamId, inviter.id, email);
  if (email !== undefined) {
    if (await isMemberAddress(tx, teamId, email)) throw new WrennError('conflict', { what: `The member ${email}` });
    await revokeInvitations(tx, teamId, { email });
  }
  const token = newToken();
  const invitation = await insertInvitation(tx, {
    id: newId('inv'),
    teamId,
    email: email ?? null,
    role,
    tokenHash: hashToken(token),
    invitedBy: inviter.id,
    expiresAt: new Date(Date.now() + lifetimeMs),
  });
  const resource = { type: 'invitation', id: invitation.id };
  const data = { email: email ?? null, role };
  await recordAudit(tx, {
    ...{ teamId, actor, resourceType: resource.type, resourceId: resource.id, action: 'create' },
    ...{ scope: 'admin', status: 'success', metadata: data },
  });
  await publishEvent(tx, { type: 'member.invited', teamId, actor, resource, data });
  if (email !== undefined) {
    const { expiresAt } = invitation;
    const facts = { teamName: team.name, actorName: inviter.name, expiresAt };
    await mail.send(tx, { to: email, kind: 'invitation', link: invitationPath(token), ...facts });
  }
  return { made: { invitation, teamName: team.name, invitedBy: inviter.name }, token };
}

async function requireFewInvitations(tx: Db, teamId: string, inviterId: string, email: string | undefined) {
  await lockInvitations(tx, inviterId, email);
  const since = new Date(Date.now() - HOUR_MS);
  const made = await countInvitationsSince(tx, teamId, inviterId, since);
  const mailed = email === undefined ? 0 : await countInvitationsTo(tx, email, since);
  if (made >= HOURLY_LIMIT || mailed >= HOURLY_ADDRESS_LIMIT) throw new WrennError('rate_limited');
}

/** Those that can still be accepted, newest first. */
export async function listInvitations(
  { db }: TeamsDeps,
  teamId: string,
  query: ArrayQuery,
): Promise<Page<NamedInvitation>> {
  return listPendingInvitations(db, teamId, query);
}

/** @throws WrennError `not_found` when there is no such pending invitation of the team */
export async function revokeInvitation({ db }: TeamsDeps, userId: string, teamId: string, id: string, actor: Actor) {
  await db.transaction(async (tx) => {
    await lockTeam(tx, teamId);
    await requireAllowed(tx, userId, teamId, 'team.members');
    const [revoked] = await revokeInvitations(tx, teamId, { id });
    if (!revoked) throw new WrennError('not_found', { what: `The invitation ${id}` });
    await recordAudit(tx, {
      ...{ teamId, actor, resourceType: 'invitation', resourceId: id, action: 'revoke' },
      ...{ scope: 'admin', status: 'success', metadata: { email: revoked.email, role: revoked.role } },
    });
  });
}

/**
 * What an invitation is for, to whoever has its token.
 *
 * @throws WrennError `invalid_token`
 */
export async function previewInvitation({ db }: TeamsDeps, token: string): Promise<NamedInvitation> {
  const found = await findPendingInvitation(db, token);
  if (!found) throw new WrennError('invalid_token');
  return found;
}

export function toInvitationBody({ invitation, teamName, invitedBy }: NamedInvitation): InvitationBody {
  return {
    id: invitation.id,
    team_id: invitation.teamId,
    team_name: teamName,
    email: invitation.email,
    role: invitation.role,
    status: invitationStatus(invitation),
    invited_by: invitedBy,
    created_at: invitation.createdAt.toISOString(),
    expires_at: invitation.expiresAt.toISOString(),
  };
}
