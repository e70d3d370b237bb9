import { WrennError } from '@wrenn/protocol/errors';
import type { ArrayQuery } from '@wrenn/protocol/rest/paging';
import type { TeamRole } from '@wrenn/protocol/rest/teams';
import { and, asc, desc, eq, exists, isNull, ne, not, type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { apiKeys, type Team, teamMembers, teams, type User, users } from '../database/people-schema.ts';
import { comesLater, type Page, type Position, pageOf, positionAt } from '../http/cursor.ts';
import { PLATFORM_TEAM_ID } from './platform-team.ts';

/** A team as one of its members sees it. */
export interface TeamOfMember {
  readonly team: Team;
  readonly role: TeamRole;
  readonly isDefault: boolean;
}

export interface Member {
  readonly userId: string;
  readonly name: string;
  readonly email: string;
  readonly role: TeamRole;
  readonly joinedAt: Date;
  /** Of the account. */
  readonly status: User['status'];
}

export async function insertTeam(db: Db, team: typeof teams.$inferInsert): Promise<Team> {
  const [row] = await db.insert(teams).values(team).returning();
  if (!row) throw new Error('INSERT gave no row');
  return row;
}

export function noSuchTeam(teamId: string): WrennError {
  return new WrennError('not_found', { what: `The team ${teamId}` });
}

/**
 * Holds off the deletion of a team until the transaction ends: what is made in it is there when the team is cleared.
 * Whoever makes something that belongs to a team begins with this.
 *
 * @param lock `no key update` where what is made is counted first: those who do the same wait for each other
 * @throws WrennError `not_found` when the team is deleted
 */
export async function requireLiveTeam(
  tx: Db,
  teamId: string,
  lock: 'share' | 'no key update' = 'share',
): Promise<void> {
  const [row] = await tx
    .select({ id: teams.id })
    .from(teams)
    .where(and(eq(teams.id, teamId), isNull(teams.deletedAt)))
    .for(lock);
  if (!row) throw noSuchTeam(teamId);
}

/**
 * Makes changes of a team's members, invitations and name wait for each other until the transaction ends. First of all
 * that such a transaction locks.
 *
 * @throws WrennError `not_found` when the team is deleted
 */
export async function lockTeam(tx: Db, teamId: string): Promise<Team> {
  const [row] = await tx
    .select()
    .from(teams)
    .where(and(eq(teams.id, teamId), isNull(teams.deletedAt), ne(teams.id, PLATFORM_TEAM_ID)))
    .for('no key update');
  if (!row) throw noSuchTeam(teamId);
  return row;
}

/** Live teams of a user: the default one first, then in the order in which the user came in. */
export async function listTeamsOf(db: Db, userId: string): Promise<TeamOfMember[]> {
  return selectTeamsOf(db, userId);
}

/** Before every team but the default one. */
const AFTER_DEFAULT: Position = { at: '1970-01-01T00:00:00.000000Z', id: '-' };

/** The same, a page of them. */
export async function pageTeamsOf(
  db: Db,
  userId: string,
  { limit, cursor }: ArrayQuery,
): Promise<Page<TeamOfMember & { readonly at: string }>> {
  const after = comesLater(teamMembers.createdAt, teams.id, cursor);
  const rows = await selectTeamsOf(db, userId, after && and(after, not(teamMembers.isDefault))).limit(limit + 1);
  return pageOf(rows, limit, ({ at, team, isDefault }) => (isDefault ? AFTER_DEFAULT : { at, id: team.id }));
}

function selectTeamsOf(db: Db, userId: string, condition?: SQL) {
  return db
    .select({
      ...{ team: teams, role: teamMembers.role, isDefault: teamMembers.isDefault },
      at: positionAt(teamMembers.createdAt),
    })
    .from(teamMembers)
    .innerJoin(teams, and(eq(teams.id, teamMembers.teamId), isNull(teams.deletedAt)))
    .where(and(eq(teamMembers.userId, userId), condition))
    .orderBy(desc(teamMembers.isDefault), asc(teamMembers.createdAt), asc(teams.id))
    .$dynamic();
}

/** Undefined: no such live team, or the user is not in it. */
export async function findTeamOf(db: Db, userId: string, teamId: string): Promise<TeamOfMember | undefined> {
  const [row] = await db
    .select({ team: teams, role: teamMembers.role, isDefault: teamMembers.isDefault })
    .from(teamMembers)
    .innerJoin(teams, and(eq(teams.id, teamMembers.teamId), isNull(teams.deletedAt)))
    .where(and(eq(teamMembers.userId, userId), eq(teams.id, teamId)));
  return row;
}

const memberColumns = {
  userId: users.id,
  name: users.name,
  email: users.email,
  role: teamMembers.role,
  joinedAt: teamMembers.createdAt,
  status: users.status,
};

/** In the order in which they came, without those who deleted their account. */
export async function listMembers(db: Db, teamId: string): Promise<Member[]> {
  return selectMembers(db, teamId);
}

/** The same, a page of them. */
export async function pageMembers(
  db: Db,
  teamId: string,
  { limit, cursor }: ArrayQuery,
): Promise<Page<Member & { readonly at: string }>> {
  const after = comesLater(teamMembers.createdAt, users.id, cursor);
  const rows = await selectMembers(db, teamId, after).limit(limit + 1);
  return pageOf(rows, limit, ({ at, userId }) => ({ at, id: userId }));
}

function selectMembers(db: Db, teamId: string, condition?: SQL) {
  return db
    .select({ ...memberColumns, at: positionAt(teamMembers.createdAt) })
    .from(teamMembers)
    .innerJoin(users, eq(users.id, teamMembers.userId))
    .where(and(eq(teamMembers.teamId, teamId), ne(users.status, 'deleted'), condition))
    .orderBy(asc(teamMembers.createdAt), asc(users.id))
    .$dynamic();
}

export async function findMember(db: Db, teamId: string, userId: string): Promise<Member | undefined> {
  const [row] = await db
    .select(memberColumns)
    .from(teamMembers)
    .innerJoin(users, eq(users.id, teamMembers.userId))
    .where(and(eq(teamMembers.teamId, teamId), eq(teamMembers.userId, userId)));
  return row;
}

/**
 * Puts a user into a team. It becomes their default one when it is their only one.
 *
 * @returns false when they are in it already
 */
export async function insertMember(tx: Db, teamId: string, userId: string, role: TeamRole): Promise<boolean> {
  if ((await listTeamsOf(tx, userId)).length === 0) {
    // Of two first teams at once one is the default.
    const first = await tx
      .insert(teamMembers)
      .values({ teamId, userId, role, isDefault: true })
      .onConflictDoNothing()
      .returning({ teamId: teamMembers.teamId });
    if (first.length > 0) return true;
  }
  const added = await tx
    .insert(teamMembers)
    .values({ teamId, userId, role })
    .onConflictDoNothing({ target: [teamMembers.teamId, teamMembers.userId] })
    .returning({ teamId: teamMembers.teamId });
  return added.length > 0;
}

export async function updateRole(tx: Db, teamId: string, userId: string, role: TeamRole): Promise<void> {
  await tx
    .update(teamMembers)
    .set({ role })
    .where(and(eq(teamMembers.teamId, teamId), eq(teamMembers.userId, userId)));
}

export async function deleteMember(tx: Db, teamId: string, userId: string): Promise<void> {
  await tx.delete(teamMembers).where(and(eq(teamMembers.teamId, teamId), eq(teamMembers.userId, userId)));
}

/** Revokes the keys that are a member's own. */
export async function revokeOwnKeys(tx: Db, teamId: string, userId: string): Promise<void> {
  await tx
    .update(apiKeys)
    .set({ revokedAt: new Date() })
    .where(and(eq(apiKeys.teamId, teamId), eq(apiKeys.userId, userId), isNull(apiKeys.revokedAt)));
}

export async function isMemberAddress(db: Db, teamId: string, email: string): Promise<boolean> {
  const rows = await db
    .select({ id: users.id })
    .from(teamMembers)
    .innerJoin(users, eq(users.id, teamMembers.userId))
    .where(and(eq(teamMembers.teamId, teamId), sql`lower(${users.email}) = lower(${email})`));
  return rows.length > 0;
}

/** Makes a team the one that logins of a user are for. The user's row is locked, so that of two choices one is last. */
export async function updateDefault(tx: Db, userId: string, teamId: string): Promise<void> {
  await tx.select({ id: users.id }).from(users).where(eq(users.id, userId)).for('no key update');
  await tx
    .update(teamMembers)
    .set({ isDefault: false })
    .where(and(eq(teamMembers.userId, userId), eq(teamMembers.isDefault, true)));
  await tx
    .update(teamMembers)
    .set({ isDefault: true })
    .where(and(eq(teamMembers.userId, userId), eq(teamMembers.teamId, teamId)));
}

/** The account of an address, among those that share a live team with a user. */
export async function findTeammate(
  db: Db,
  userId: string,
  email: string,
): Promise<{ id: string; name: string; email: string } | undefined> {
  const mine = db
    .select({ one: sql`1` })
    .from(teamMembers)
    .innerJoin(teams, and(eq(teams.id, teamMembers.teamId), isNull(teams.deletedAt)))
    .where(
      and(
        eq(teamMembers.userId, users.id),
        sql`${teamMembers.teamId} IN (SELECT mine.team_id FROM team_members mine WHERE mine.user_id = ${userId})`,
      ),
    );
  const [row] = await db
    .select({ id: users.id, name: users.name, email: users.email })
    .from(users)
    .where(and(sql`lower(${users.email}) = lower(${email})`, eq(users.status, 'active'), exists(mine)));
  return row;
}
