import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import type { ArrayQuery } from '@wrenn/protocol/rest/paging';
import { and, desc, eq, getTableColumns, gt, isNull, lt, ne, or, sql } from 'drizzle-orm';
import { revokeConnections } from '../access/open-connections.ts';
import type { SignedInUser } from '../access/principal.ts';
import type { Db } from '../database/database.ts';
import { type Session, sessions, teamMembers, teams, users } from '../database/people-schema.ts';
import { preparedOnce } from '../database/prepared.ts';
import { comesAfter, type Page, pageOf, positionAt } from '../http/cursor.ts';
import type { SessionClaims } from './session-token.ts';

const DAY_MS = 24 * 60 * 60 * 1000;
export const SESSION_LIFETIME_MS = 30 * DAY_MS;

/** Where a login came from. */
export interface ClientFacts {
  readonly address: string | undefined;
  readonly userAgent: string | undefined;
}

const USER_AGENT_LENGTH = 300;

/** @param method `password`, `activation`, `passkey`, or the name of a provider */
export async function beginSession(db: Db, userId: string, method: string, client: ClientFacts): Promise<Session> {
  const [session] = await db
    .insert(sessions)
    .values({
      id: newId('ses'),
      userId,
      method,
      address: client.address ?? null,
      userAgent: client.userAgent?.slice(0, USER_AGENT_LENGTH) ?? null,
      expiresAt: new Date(Date.now() + SESSION_LIFETIME_MS),
    })
    .returning();
  if (!session) throw new Error('INSERT gave no row');
  return session;
}

const hasNotEnded = and(isNull(sessions.revokedAt), gt(sessions.expiresAt, sql`now()`));

/**
 * The person of a session, with the role that they have now in the team that the token is for.
 *
 * @throws WrennError `unauthorized` when the session has ended, `account_deactivated`
 */
export async function findSignedInUser(
  db: Db,
  { userId, sessionId, teamId = '' }: SessionClaims,
): Promise<SignedInUser> {
  const [row] = await queryOf(db).execute({ userId, sessionId, teamId });
  if (!row) throw new WrennError('unauthorized');
  if (row.status !== 'active') throw new WrennError('account_deactivated');
  const { id, name, email, isAdmin, role } = row;
  const team = row.teamId && role ? { id: row.teamId, role } : undefined;
  return { type: 'user', id, name, email, isAdmin, sessionId, team };
}

const queryOf = preparedOnce((db) =>
  db
    .select({
      id: users.id,
      name: users.name,
      email: users.email,
      status: users.status,
      isAdmin: users.isAdmin,
      teamId: teams.id,
      role: teamMembers.role,
    })
    .from(sessions)
    .innerJoin(users, eq(users.id, sessions.userId))
    .leftJoin(teamMembers, and(eq(teamMembers.userId, users.id), eq(teamMembers.teamId, sql.placeholder('teamId'))))
    .leftJoin(teams, and(eq(teams.id, teamMembers.teamId), isNull(teams.deletedAt)))
    .where(
      and(eq(sessions.id, sql.placeholder('sessionId')), eq(sessions.userId, sql.placeholder('userId')), hasNotEnded),
    )
    .prepare('find_signed_in_user'),
);

/** Sessions of a user that have not ended, the newest first. */
export async function listSessions(db: Db, userId: string, { limit, cursor }: ArrayQuery): Promise<Page<Session>> {
  const isOpen = and(isNull(sessions.revokedAt), gt(sessions.expiresAt, sql`now()`));
  const rows = await db
    .select({ ...getTableColumns(sessions), at: positionAt(sessions.createdAt) })
    .from(sessions)
    .where(and(eq(sessions.userId, userId), isOpen, comesAfter(sessions.createdAt, sessions.id, cursor)))
    .orderBy(desc(sessions.createdAt), desc(sessions.id))
    .limit(limit + 1);
  return pageOf(rows, limit, (row) => row);
}

/** Ends one session of a user, and what is open on it. @returns whether there was one to end */
export async function revokeSession(db: Db, userId: string, sessionId: string): Promise<boolean> {
  const ended = await db
    .update(sessions)
    .set({ revokedAt: new Date() })
    .where(and(eq(sessions.id, sessionId), eq(sessions.userId, userId), hasNotEnded))
    .returning({ id: sessions.id });
  for (const { id } of ended) await revokeConnections(db, { sessionId: id });
  return ended.length > 0;
}

/** Ends all sessions of a user, or all but one, and what is open on them. @returns how many ended */
export async function revokeSessions(db: Db, userId: string, exceptId?: string): Promise<number> {
  const ended = await db
    .update(sessions)
    .set({ revokedAt: new Date() })
    .where(
      and(
        eq(sessions.userId, userId),
        isNull(sessions.revokedAt),
        exceptId === undefined ? undefined : ne(sessions.id, exceptId),
      ),
    )
    .returning({ id: sessions.id });
  for (const { id } of ended) await revokeConnections(db, { sessionId: id });
  return ended.length;
}

/** Forgets sessions that ended this long ago. @returns how many */
export async function pruneSessions(db: Db, keepMs: number): Promise<number> {
  const before = new Date(Date.now() - keepMs);
  const gone = await db.delete(sessions).where(or(lt(sessions.expiresAt, before), lt(sessions.revokedAt, before)));
  return gone.rowCount ?? 0;
}
