import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import type { TeamRole } from '@wrenn/protocol/rest/teams';
import { eq } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import { requireAllowed } from '../access/in-team.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import { type Team, teams, type User } from '../database/people-schema.ts';
import { publishEvent } from '../events/publish.ts';
import { holdUser, requireActiveUser } from '../identity/user-store.ts';
import type { MailSender } from '../mail/mails.ts';
import { newSlug } from './slug.ts';
import {
  findMember,
  findTeamOf,
  insertMember,
  insertTeam,
  listTeamsOf,
  lockTeam,
  noSuchTeam,
  type TeamOfMember,
  updateDefault,
  updateRole,
} from './team-store.ts';

export interface TeamsDeps {
  readonly db: Db;
  readonly mail: MailSender;
}

/** A person as far as teams are concerned. */
export type Person = Pick<User, 'id' | 'name' | 'email'>;

const NAME_LENGTH = 128;

/** The team that a new account begins with, named after its person. */
export async function createDefaultTeam(tx: Db, user: Person, actor: Actor = personAsActor(user)): Promise<Team> {
  const name = user.name.replaceAll(/[^\p{L}\p{N} _\-@']/gu, ' ').trim();
  return insertOwnedTeam(tx, user, name === '' ? 'My team' : `${name}'s team`.slice(0, NAME_LENGTH), actor);
}

function personAsActor({ id, name }: Pick<Person, 'id' | 'name'>): Actor {
  return { type: 'user', id, name };
}

async function insertOwnedTeam(tx: Db, { id: userId }: Person, name: string, actor: Actor): Promise<Team> {
  const team = await insertTeam(tx, { id: newId('team'), name, slug: newSlug() });
  await insertMember(tx, team.id, userId, 'owner');
  await recordAudit(tx, {
    ...{ teamId: team.id, actor, resourceType: 'team', resourceId: team.id, action: 'create' },
    ...{ scope: 'team', status: 'success', metadata: { name } },
  });
  return team;
}

/** The team that a login is for: the default one, else the first live one. Undefined: the user is in none. */
export async function pickTeam(db: Db, userId: string): Promise<{ id: string; role: TeamRole } | undefined> {
  const [first] = await listTeamsOf(db, userId);
  return first && { id: first.team.id, role: first.role };
}

/** @throws WrennError `not_found` also for a team that the user is not in */
export async function requireTeamOf(db: Db, userId: string, teamId: string): Promise<TeamOfMember> {
  const found = await findTeamOf(db, userId, teamId);
  if (!found) throw noSuchTeam(teamId);
  return found;
}

/**
 * The one who makes a team owns it.
 *
 * @throws WrennError `account_deactivated`
 */
export async function createTeam({ db, mail }: TeamsDeps, user: Person, name: string, actor: Actor) {
  return db.transaction(async (tx) => {
    await requireActiveUser(tx, user.id);
    const team = await insertOwnedTeam(tx, user, name, actor);
    await mail.send(tx, { to: user.email, kind: 'team_created', name: user.name, teamName: name });
    return requireTeamOf(tx, user.id, team.id);
  });
}

export async function renameTeam({ db }: TeamsDeps, userId: string, teamId: string, name: string, actor: Actor) {
  await db.transaction(async (tx) => {
    const { name: before } = await lockTeam(tx, teamId);
    await requireAllowed(tx, userId, teamId, 'team.update');
    await tx.update(teams).set({ name }).where(eq(teams.id, teamId));
    await recordAudit(tx, {
      ...{ teamId, actor, resourceType: 'team', resourceId: teamId, action: 'rename' },
      ...{ scope: 'team', status: 'success', metadata: { before, name } },
    });
  });
}

/** Makes a team the one that logins of the user are for. */
export async function setDefaultTeam({ db }: TeamsDeps, userId: string, teamId: string): Promise<void> {
  await db.transaction(async (tx) => {
    await requireTeamOf(tx, userId, teamId);
    await updateDefault(tx, userId, teamId);
  });
}

/**
 * Passes a team on to one of its members; its owner becomes an admin.
 *
 * @throws WrennError `insufficient_role` when the caller does not own it; `not_found` when the other is no member
 */
export async function transferTeam({ db, mail }: TeamsDeps, from: Person, teamId: string, toId: string, actor: Actor) {
  if (toId === from.id) throw new WrennError('invalid_request', { problem: 'user_id is the owner already' });
  await db.transaction(async (tx) => {
    const { name: teamName } = await lockTeam(tx, teamId);
    await requireAllowed(tx, from.id, teamId, 'team.own');
    // Whoever deletes their account at this moment is gone before, or finds that they own the team.
    await holdUser(tx, toId);
    const to = await findMember(tx, teamId, toId);
    if (to?.status !== 'active') throw new WrennError('not_found', { what: `The member ${toId}` });
    // In this order: the index allows one owner at any instant.
    await updateRole(tx, teamId, from.id, 'admin');
    await updateRole(tx, teamId, toId, 'owner');
    const facts = { from: from.id, to: toId };
    await recordAudit(tx, {
      ...{ teamId, actor, resourceType: 'team', resourceId: teamId, action: 'transfer' },
      ...{ scope: 'team', status: 'success', metadata: facts },
    });
    await publishEvent(tx, {
      ...{ type: 'team.owner_changed', teamId, actor, resource: { type: 'team', id: teamId }, data: facts },
    });
    for (const { email, name } of [from, to]) {
      await mail.send(tx, { to: email, kind: 'owner_changed', name, teamName, actorName: to.name });
    }
  });
}
