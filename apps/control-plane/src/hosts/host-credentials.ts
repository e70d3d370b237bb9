import { WrennError } from '@wrenn/protocol/errors';
import { and, eq, getTableColumns, gt, isNotNull, isNull, lt, ne, or, type SQL, sql } from 'drizzle-orm';
import { SYSTEM } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import { type HostRow, hostRefreshTokens, hosts } from '../database/host-schema.ts';

/** A set of credentials: a host token, a refresh token and a certificate that were given out together. */
export type Credential = typeof hostRefreshTokens.$inferSelect & {
  readonly host: Pick<HostRow, 'teamId' | 'deletedAt'>;
};

export async function findCredential(
  db: Db,
  by: { readonly id: string; readonly hostId: string } | { readonly tokenHash: string },
): Promise<Credential | undefined> {
  const condition =
    'id' in by
      ? and(eq(hostRefreshTokens.id, by.id), eq(hostRefreshTokens.hostId, by.hostId))
      : eq(hostRefreshTokens.tokenHash, by.tokenHash);
  const [row] = await db
    .select({
      ...getTableColumns(hostRefreshTokens),
      host: { teamId: hosts.teamId, deletedAt: hosts.deletedAt },
    })
    .from(hostRefreshTokens)
    .innerJoin(hosts, eq(hosts.id, hostRefreshTokens.hostId))
    .where(condition);
  return row;
}

/**
 * Refuses a set that ended. That somebody still has it may mean that it was copied, so it is written down, once an hour.
 *
 * @param part of the set that was shown
 * @throws WrennError `host_deleted` when the host was deleted, `host_credential_refused`
 */
export async function requireUsable(db: Db, credential: Credential, part: 'token' | 'refresh_token'): Promise<void> {
  const { id, hostId, revokedAt, expiresAt, host } = credential;
  if (host.deletedAt) throw new WrennError('host_deleted', { id: hostId });
  if (expiresAt.getTime() <= Date.now()) throw new WrennError('host_credential_refused', { problem: 'it has expired' });
  if (!revokedAt || revokedAt.getTime() > Date.now()) return;
  await db.transaction(async (tx) => {
    const told = await tx
      .update(hostRefreshTokens)
      .set({ reusedAt: sql`now()` })
      .where(
        and(
          eq(hostRefreshTokens.id, id),
          or(isNull(hostRefreshTokens.reusedAt), lt(hostRefreshTokens.reusedAt, sql`now() - interval '1 hour'`)),
        ),
      )
      .returning({ id: hostRefreshTokens.id });
    if (told.length === 0) return;
    await auditHost(tx, { id: hostId, teamId: host.teamId }, 'reuse_credential', 'warning', {
      part,
      credential_id: id,
      revoked_at: revokedAt.toISOString(),
    });
  });
  throw new WrennError('host_credential_refused', { problem: 'a newer one has replaced it' });
}

/**
 * Notes the first use of a set: whoever uses it got it, so all others of the host end. Of two sets that are first used at
 * the same instant one stays.
 *
 * @throws WrennError `host_credential_refused` when another one was used meanwhile
 */
export async function useCredential(db: Db, { id, hostId }: Pick<Credential, 'id' | 'hostId'>): Promise<void> {
  await db.transaction(async (tx) => {
    await tx.select({ id: hosts.id }).from(hosts).where(eq(hosts.id, hostId)).for('no key update');
    const [used] = await tx
      .update(hostRefreshTokens)
      .set({ usedAt: sql`now()` })
      .where(and(eq(hostRefreshTokens.id, id), isNull(hostRefreshTokens.usedAt), isNotOver))
      .returning();
    if (!used && (await isInUse(tx, id))) return;
    if (!used) throw new WrennError('host_credential_refused', { problem: 'a newer one has replaced it' });
    await endCredentials(tx, hostId, ne(hostRefreshTokens.id, id));
    const { certFingerprint, certExpiresAt } = used;
    await tx.update(hosts).set({ certFingerprint, certExpiresAt }).where(eq(hosts.id, hostId));
  });
}

/** Whether somebody else noted its first use, since when newer sets may have been given out. */
async function isInUse(tx: Db, id: string): Promise<boolean> {
  const found = await tx.$count(
    hostRefreshTokens,
    and(eq(hostRefreshTokens.id, id), isNotNull(hostRefreshTokens.usedAt), isNotOver),
  );
  return found > 0;
}

/** When a statement runs: a transaction that waited for another one began before what that one wrote. */
const AT_ONCE = sql`clock_timestamp()`;

const isNotOver = or(isNull(hostRefreshTokens.revokedAt), gt(hostRefreshTokens.revokedAt, AT_ONCE));

/** Ends sets of a host that still hold, at once or at a time to come. */
export async function endCredentials(tx: Db, hostId: string, which?: SQL, at: SQL = AT_ONCE): Promise<void> {
  await tx
    .update(hostRefreshTokens)
    .set({ revokedAt: at })
    .where(and(eq(hostRefreshTokens.hostId, hostId), isNotOver, which));
}

/** Writes down what happened to a host by itself: for its team where it has one, else for the platform. */
export async function auditHost(
  db: Db,
  { id, teamId }: Pick<HostRow, 'id' | 'teamId'>,
  action: string,
  status: 'success' | 'info' | 'warning',
  metadata: Record<string, unknown>,
  address?: string,
): Promise<void> {
  await recordAudit(db, {
    ...{ teamId: teamId ?? undefined, actor: { ...SYSTEM, address }, resourceType: 'host', resourceId: id },
    ...{ action, scope: teamId ? 'team' : 'platform', status, metadata },
  });
}
