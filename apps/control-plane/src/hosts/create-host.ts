import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import type { createHostRequestSchema } from '@wrenn/protocol/rest/hosts';
import { and, eq, isNull, sql } from 'drizzle-orm';
import type { z } from 'zod';
import { requireAllowed } from '../access/in-team.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import { hosts, hostTags, hostTokens } from '../database/host-schema.ts';
import { teams } from '../database/people-schema.ts';
import { requireLiveTeam } from '../teams/team-store.ts';
import { hashToken, putToken, revokeTokens } from '../tokens/one-time-tokens.ts';
import { lockHost } from './host-rows.ts';
import type { HostViewer } from './host-viewer.ts';

const TOKEN_MS = 3_600_000;

type NewHost = z.output<typeof createHostRequestSchema>;

/** What is shown once. */
export interface NewToken {
  readonly hostId: string;
  readonly token: string;
  readonly expiresAt: Date;
}

/**
 * Makes a host that waits for its agent to register.
 *
 * @throws WrennError `forbidden` for the platform's hosts, where the caller does not administer it; `no_team`,
 *   `not_found`, `byoc_off` for a team's
 */
export async function createHost(db: Db, viewer: HostViewer, wanted: NewHost): Promise<NewToken> {
  const teamId = wanted.type === 'byoc' ? teamFor(viewer, wanted) : undefined;
  if (teamId === undefined && !viewer.isAdmin) throw new WrennError('forbidden');
  if (wanted.type === 'regular' && wanted.team_id !== undefined)
    throw new WrennError('invalid_request', { problem: 'team_id is for hosts of the type byoc' });
  return db.transaction(async (tx) => {
    if (teamId !== undefined) await requireByocTeam(tx, viewer, teamId);
    const id = newId('host');
    await tx.insert(hosts).values({
      ...{ id, type: wanted.type, status: 'pending', teamId: teamId ?? null, createdBy: viewer.id ?? null },
      ...{ provider: wanted.provider ?? null, availabilityZone: wanted.availability_zone ?? null },
    });
    const tags = [...new Set(wanted.tags)];
    if (tags.length > 0) await tx.insert(hostTags).values(tags.map((tag) => ({ hostId: id, tag })));
    const facts = { type: wanted.type, tags };
    await auditChange(tx, viewer, { id, teamId: teamId ?? null }, 'create', facts);
    return makeToken(tx, viewer, id);
  });
}

function teamFor({ team }: HostViewer, { team_id: asked }: NewHost): string {
  const teamId = asked ?? team?.id;
  if (teamId === undefined) throw new WrennError('no_team');
  return teamId;
}

async function requireByocTeam(tx: Db, viewer: HostViewer, teamId: string): Promise<void> {
  await requireLiveTeam(tx, teamId);
  if (!viewer.isAdmin && viewer.team?.id !== teamId) {
    if (viewer.userId === undefined) throw new WrennError('not_found', { what: `The team ${teamId}` });
    await requireAllowed(tx, viewer.userId, teamId, 'host.write');
  }
  const [team] = await tx
    .select({ isByoc: teams.isByoc })
    .from(teams)
    .where(and(eq(teams.id, teamId), isNull(teams.deletedAt)));
  if (!team?.isByoc) throw new WrennError('byoc_off', { id: teamId });
}

/**
 * A new registration token for a host, which replaces those before it. What the host has now holds until somebody
 * registers with the token.
 *
 * @throws WrennError `host_not_found`; `not_found` when its team was deleted
 */
export async function renewToken(db: Db, viewer: HostViewer, id: string): Promise<NewToken> {
  return db.transaction(async (tx) => {
    const [found] = await tx.select({ teamId: hosts.teamId }).from(hosts).where(eq(hosts.id, id));
    if (found?.teamId && (viewer.isAdmin || viewer.team?.id === found.teamId)) await requireLiveTeam(tx, found.teamId);
    const host = await lockHost(tx, viewer, id);
    await auditChange(tx, viewer, host, 'create_token', { status: host.status });
    return makeToken(tx, viewer, id);
  });
}

async function makeToken(tx: Db, viewer: HostViewer, hostId: string): Promise<NewToken> {
  await revokeTokens(tx, 'host_registration', hostId);
  const id = newId('htok');
  const expiresAt = new Date(Date.now() + TOKEN_MS);
  const token = await putToken(tx, {
    purpose: 'host_registration',
    subject: hostId,
    data: { token_id: id },
    lifetimeMs: TOKEN_MS,
  });
  await tx.insert(hostTokens).values({
    ...{ id, hostId, createdBy: viewer.id ?? null, expiresAt, tokenHash: hashToken(token) },
    // Not when the transaction began: which one is the newest, the lock of the host decides.
    createdAt: sql`clock_timestamp()`,
  });
  return { hostId, token, expiresAt };
}

export async function auditChange(
  tx: Db,
  { actor }: HostViewer,
  { id, teamId }: { readonly id: string; readonly teamId: string | null },
  action: string,
  metadata: Record<string, unknown> = {},
): Promise<void> {
  await recordAudit(tx, {
    ...{ teamId: teamId ?? undefined, actor, resourceType: 'host', resourceId: id, action },
    ...{ scope: teamId ? 'team' : 'platform', status: 'success', metadata },
  });
}
