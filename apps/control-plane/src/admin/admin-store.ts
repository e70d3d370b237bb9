import type { NumberedPage } from '@wrenn/protocol/rest/admin';
import { and, asc, count, desc, eq, isNull, ne, sql } from 'drizzle-orm';
import { channels } from '../database/channel-schema.ts';
import type { Db } from '../database/database.ts';
import { type Team, teamMembers, teams, type User, users } from '../database/people-schema.ts';
import { capsules } from '../database/schema.ts';
import { PLATFORM_TEAM_ID } from '../teams/platform-team.ts';

/** A part of a list, and how long the whole is. */
export interface Listed<Row> {
  readonly rows: readonly Row[];
  readonly total: number;
}

export interface TeamWithFacts {
  readonly team: Team;
  readonly memberCount: number;
  readonly ownerName: string | null;
  readonly ownerEmail: string | null;
  readonly capsuleCount: number;
  readonly channelCount: number;
}

const offsetOf = ({ page, per_page }: NumberedPage) => (page - 1) * per_page;

/** All teams but the platform's own, deleted ones too, newest first. */
export async function listAllTeams(db: Db, page: NumberedPage): Promise<Listed<TeamWithFacts>> {
  const isTeam = ne(teams.id, PLATFORM_TEAM_ID);
  const owner = db
    .select({ teamId: teamMembers.teamId, name: users.name, email: users.email })
    .from(teamMembers)
    .innerJoin(users, eq(users.id, teamMembers.userId))
    .where(eq(teamMembers.role, 'owner'))
    .as('owner');
  const members = db.$count(teamMembers, eq(teamMembers.teamId, teams.id));
  const living = db.$count(
    capsules,
    and(eq(capsules.teamId, teams.id), sql`${capsules.status} NOT IN ('stopped', 'error')`),
  );
  const heard = db.$count(channels, eq(channels.teamId, teams.id));
  const rows = await db
    .select({
      team: teams,
      memberCount: members,
      ownerName: owner.name,
      ownerEmail: owner.email,
      capsuleCount: living,
      channelCount: heard,
    })
    .from(teams)
    .leftJoin(owner, eq(owner.teamId, teams.id))
    .where(isTeam)
    .orderBy(desc(teams.createdAt), desc(teams.id))
    .limit(page.per_page)
    .offset(offsetOf(page));
  const [all] = await db.select({ total: count() }).from(teams).where(isTeam);
  return { rows, total: all?.total ?? 0 };
}

export interface UserWithFacts {
  readonly user: User;
  readonly joined: number;
  readonly owned: number;
}

/** All accounts, newest first. */
export async function listAllUsers(db: Db, page: NumberedPage): Promise<Listed<UserWithFacts>> {
  const isLive = sql`EXISTS (SELECT FROM teams live WHERE live.id = ${teamMembers.teamId} AND live.deleted_at IS NULL)`;
  const joined = db.$count(teamMembers, and(eq(teamMembers.userId, users.id), isLive));
  const owned = db.$count(teamMembers, and(eq(teamMembers.userId, users.id), eq(teamMembers.role, 'owner'), isLive));
  const rows = await db
    .select({ user: users, joined, owned })
    .from(users)
    .orderBy(desc(users.createdAt), desc(users.id))
    .limit(page.per_page)
    .offset(offsetOf(page));
  const [all] = await db.select({ total: count() }).from(users);
  return { rows, total: all?.total ?? 0 };
}

/**
 * All administrators that can log in, locked until the transaction ends: of two that would each leave none, one sees
 * what the other did.
 */
export async function lockAdmins(tx: Db): Promise<User[]> {
  return tx
    .select()
    .from(users)
    .where(and(eq(users.isAdmin, true), eq(users.status, 'active')))
    .orderBy(asc(users.id))
    .for('no key update');
}

export async function listAdmins(db: Db): Promise<User[]> {
  return db.select().from(users).where(eq(users.isAdmin, true)).orderBy(asc(users.createdAt), asc(users.id));
}

/** The team that a platform of one machine begins with, as long as nobody is in it. */
export async function lockOwnerlessTeam(tx: Db): Promise<Team | undefined> {
  const [team] = await tx
    .select()
    .from(teams)
    .where(
      and(
        eq(teams.name, 'default'),
        isNull(teams.deletedAt),
        ne(teams.id, PLATFORM_TEAM_ID),
        sql`NOT EXISTS (SELECT FROM team_members member WHERE member.team_id = ${teams.id})`,
      ),
    )
    .orderBy(asc(teams.createdAt), asc(teams.id))
    .limit(1)
    .for('no key update');
  // Once more: whoever held the lock until now may have given it an owner, which does not change the row of the team.
  return team && (await tx.$count(teamMembers, eq(teamMembers.teamId, team.id))) === 0 ? team : undefined;
}
