import { WrennError } from '@wrenn/protocol/errors';
import type { NumberedPage } from '@wrenn/protocol/rest/admin';
import { and, eq, isNull, ne, or } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import { revokeConnections } from '../access/open-connections.ts';
import { type CapsulesDeps, destroyAsSystem } from '../capsules/capsules.ts';
import type { Db } from '../database/database.ts';
import { apiKeys, teamMembers, teams, users } from '../database/people-schema.ts';
import { capsules } from '../database/schema.ts';
import { GRACE_MS } from '../identity/account-deletion.ts';
import { revokeSessions } from '../identity/sessions.ts';
import { findUser, updateUser } from '../identity/user-store.ts';
import type { Jobs } from '../jobs/jobs.ts';
import { recordAdminAct } from './admin-audit.ts';
import { type Listed, listAllUsers, lockAdmins, type UserWithFacts } from './admin-store.ts';

export const END_CAPSULES_QUEUE = 'end-capsules-of-disabled';
const END_CAPSULES_MS = 120_000;

export interface AdminUsersDeps {
  readonly db: Db;
  readonly jobs: Pick<Jobs, 'enqueue'>;
}

export async function listUsers({ db }: AdminUsersDeps, page: NumberedPage): Promise<Listed<UserWithFacts>> {
  return listAllUsers(db, page);
}

/**
 * Switches an account off or on. Off: its sessions and the keys that it made end at once, and capsules of teams that it
 * owns are destroyed.
 *
 * @throws WrennError `not_found` when the account is in no state for it; `invalid_request` for oneself
 */
export async function setActive(
  { db, jobs }: AdminUsersDeps,
  adminId: string,
  userId: string,
  active: boolean,
  actor: Actor,
): Promise<void> {
  if (userId === adminId) throw new WrennError('invalid_request', { problem: 'you cannot switch your own account' });
  await db.transaction(async (tx) => {
    const admins = await lockAdmins(tx);
    // Two administrators who switch each other off at once: one of them is none any more.
    if (!admins.some(({ id }) => id === adminId)) throw new WrennError('forbidden');
    const before = await findUser(tx, userId);
    const wanted = active ? 'active' : 'disabled';
    if (before?.status === wanted) return;
    const user = await updateUser(tx, userId, active ? 'disabled' : 'active', { status: wanted });
    if (!user) throw new WrennError('not_found', { what: `The ${active ? 'disabled' : 'active'} user ${userId}` });
    const action = active ? 'activate' : 'deactivate';
    await recordAdminAct(tx, { actor, resource: 'user', id: userId, action, metadata: { email: user.email } });
    if (active) return;
    await revokeSessions(tx, userId);
    await revokeKeysOf(tx, userId);
    await revokeConnections(tx, { userId });
    await jobs.enqueue(tx, END_CAPSULES_QUEUE, { userId });
  });
}

/** Keys that are the person's own, and those that they made for teams. */
async function revokeKeysOf(tx: Db, userId: string): Promise<void> {
  const revoked = await tx
    .update(apiKeys)
    .set({ revokedAt: new Date() })
    .where(and(or(eq(apiKeys.userId, userId), eq(apiKeys.createdBy, userId)), isNull(apiKeys.revokedAt)))
    .returning({ id: apiKeys.id });
  for (const { id } of revoked) await revokeConnections(tx, { keyId: id });
}

/** Has the capsules of disabled owners destroyed, by whichever control plane is there. */
export function defineEndCapsules(jobs: Jobs, deps: CapsulesDeps): void {
  jobs.define<{ userId: string }>(
    END_CAPSULES_QUEUE,
    { deadlineMs: END_CAPSULES_MS, retry: { limit: 10, delayMs: 1000, maxDelayMs: 60_000 } },
    async ({ userId }, signal) => {
      const living = await deps.db
        .select({ id: capsules.id })
        .from(capsules)
        .innerJoin(teams, and(eq(teams.id, capsules.teamId), isNull(teams.deletedAt)))
        .innerJoin(teamMembers, and(eq(teamMembers.teamId, teams.id), eq(teamMembers.role, 'owner')))
        .innerJoin(users, and(eq(users.id, teamMembers.userId), eq(users.status, 'disabled')))
        .where(and(eq(users.id, userId), ne(capsules.status, 'stopped')));
      for (const capsule of living) {
        signal.throwIfAborted();
        await destroyAsSystem(deps, capsule);
      }
    },
  );
}

/**
 * Brings back an account that its owner deleted, within the time of grace. Its teams stay deleted.
 *
 * @throws WrennError `not_found`
 */
export async function restoreUser({ db }: AdminUsersDeps, userId: string, actor: Actor): Promise<void> {
  await db.transaction(async (tx) => {
    const [before] = await tx.select().from(users).where(eq(users.id, userId)).for('no key update');
    const isInTime = before?.deletedAt && before.deletedAt.getTime() + GRACE_MS > Date.now();
    const user = isInTime && (await updateUser(tx, userId, 'deleted', { status: 'active', deletedAt: null }));
    if (!user) throw new WrennError('not_found', { what: `The deleted user ${userId}` });
    await recordAdminAct(tx, {
      actor,
      resource: 'user',
      id: userId,
      action: 'restore',
      metadata: { email: user.email },
    });
  });
}
