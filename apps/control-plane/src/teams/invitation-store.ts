import type { ArrayQuery } from '@wrenn/protocol/rest/paging';
import type { InvitationBody } from '@wrenn/protocol/rest/teams';
import { and, count, desc, eq, gt, isNull, or, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type Invitation, invitations, teams, users } from '../database/people-schema.ts';
import { comesAfter, type Page, pageOf, positionAt } from '../http/cursor.ts';
import { hashToken } from '../tokens/one-time-tokens.ts';

/** An invitation with the names that belong to it. */
export interface NamedInvitation {
  readonly invitation: Invitation;
  readonly teamName: string;
  /** Name of who invited; null: that account is gone. */
  readonly invitedBy: string | null;
}

const isPending = and(
  isNull(invitations.acceptedAt),
  isNull(invitations.revokedAt),
  gt(invitations.expiresAt, sql`now()`),
);

export async function insertInvitation(tx: Db, invitation: typeof invitations.$inferInsert): Promise<Invitation> {
  const [row] = await tx.insert(invitations).values(invitation).returning();
  if (!row) throw new Error('INSERT gave no row');
  return row;
}

function named(db: Db) {
  return db
    .select({
      invitation: invitations,
      teamName: teams.name,
      invitedBy: users.name,
      at: positionAt(invitations.createdAt),
    })
    .from(invitations)
    .innerJoin(teams, and(eq(teams.id, invitations.teamId), isNull(teams.deletedAt)))
    .leftJoin(users, eq(users.id, invitations.invitedBy));
}

/** Whatever became of it. */
export async function findInvitation(db: Db, token: string): Promise<NamedInvitation | undefined> {
  const [row] = await named(db).where(eq(invitations.tokenHash, hashToken(token)));
  return row;
}

export async function findPendingInvitation(db: Db, token: string): Promise<NamedInvitation | undefined> {
  const [row] = await named(db).where(and(eq(invitations.tokenHash, hashToken(token)), isPending));
  return row;
}

/** Newest first. */
export async function listPendingInvitations(
  db: Db,
  teamId: string,
  { limit, cursor }: ArrayQuery,
): Promise<Page<NamedInvitation>> {
  const rows = await named(db)
    .where(and(eq(invitations.teamId, teamId), isPending, comesAfter(invitations.createdAt, invitations.id, cursor)))
    .orderBy(desc(invitations.createdAt), desc(invitations.id))
    .limit(limit + 1);
  return pageOf(rows, limit, ({ at, invitation }) => ({ at, id: invitation.id }));
}

/** Marks it used. Of several at once one succeeds. */
export async function takeInvitation(tx: Db, id: string, userId: string): Promise<boolean> {
  const taken = await tx
    .update(invitations)
    .set({ acceptedAt: new Date(), acceptedBy: userId })
    .where(and(eq(invitations.id, id), isPending))
    .returning({ id: invitations.id });
  return taken.length > 0;
}

/** Takes back pending ones of a team: one by its id, those of an address, those that somebody gave, or all. */
export async function revokeInvitations(
  tx: Db,
  teamId: string,
  which: { readonly id?: string; readonly email?: string; readonly invitedBy?: string } = {},
): Promise<Invitation[]> {
  const { id, email, invitedBy } = which;
  return tx
    .update(invitations)
    .set({ revokedAt: new Date() })
    .where(
      and(
        eq(invitations.teamId, teamId),
        isPending,
        id === undefined ? undefined : eq(invitations.id, id),
        email === undefined ? undefined : sql`lower(${invitations.email}) = lower(${email})`,
        invitedBy === undefined ? undefined : eq(invitations.invitedBy, invitedBy),
      ),
    )
    .returning();
}

/** First keys of advisory locks, whose second is a hash of what is locked. Nothing else may use them. */
const LOCKS = { person: 736_651_043, address: 736_651_044 };

/**
 * Makes new invitations of one person, and those to one address, wait for each other until the transaction ends,
 * whichever teams they are for. After the team.
 */
export async function lockInvitations(tx: Db, invitedBy: string, email: string | undefined): Promise<void> {
  await tx.execute(sql`SELECT pg_advisory_xact_lock(${LOCKS.person}, hashtext(${invitedBy}))`);
  if (email === undefined) return;
  await tx.execute(sql`SELECT pg_advisory_xact_lock(${LOCKS.address}, hashtext(lower(${email})))`);
}

/** How many a team or a person made since a time. */
export async function countInvitationsSince(tx: Db, teamId: string, invitedBy: string, since: Date): Promise<number> {
  const [row] = await tx
    .select({ made: count() })
    .from(invitations)
    .where(
      and(gt(invitations.createdAt, since), or(eq(invitations.teamId, teamId), eq(invitations.invitedBy, invitedBy))),
    );
  return row?.made ?? 0;
}

/** How often an address was invited since a time, by whichever team. */
export async function countInvitationsTo(tx: Db, email: string, since: Date): Promise<number> {
  const [row] = await tx
    .select({ made: count() })
    .from(invitations)
    .where(and(gt(invitations.createdAt, since), sql`lower(${invitations.email}) = lower(${email})`));
  return row?.made ?? 0;
}

export function invitationStatus({ acceptedAt, revokedAt, expiresAt }: Invitation): InvitationBody['status'] {
  if (acceptedAt) return 'accepted';
  if (revokedAt) return 'revoked';
  return expiresAt.getTime() <= Date.now() ? 'expired' : 'pending';
}
