import { and, eq, lt, or } from 'drizzle-orm';
import type { Logger } from 'pino';
import { SYSTEM } from '../access/actor.ts';
import { anonymiseActor } from '../audit/anonymise-actor.ts';
import { rateLimits, users } from '../database/people-schema.ts';
import type { Jobs } from '../jobs/jobs.ts';
import { pruneTokens } from '../tokens/one-time-tokens.ts';
import { recordOnAccount } from './account-audit.ts';
import { GRACE_MS } from './account-deletion.ts';
import type { AccountDeps } from './account-deps.ts';
import { pruneSessions } from './sessions.ts';

export const PURGE_QUEUE = 'accounts.purge';
const EVERY_HOUR = '17 * * * *';
const DEADLINE_MS = 10 * 60_000;
const DAY_MS = 24 * 3_600_000;
/** How long a sign-up that nobody activated is kept. */
const KEEP_INACTIVE_MS = 7 * DAY_MS;
/** How long a session that ended is kept. */
const KEEP_SESSIONS_MS = 30 * DAY_MS;

type PurgeDeps = Pick<AccountDeps, 'db' | 'mail'>;

/** Has what accounts leave behind removed each hour, by one of the control planes. */
export function defineAccountPurge(jobs: Jobs, deps: PurgeDeps, log: Logger): void {
  jobs.define(PURGE_QUEUE, { deadlineMs: DEADLINE_MS }, async (_data, signal) => {
    const { db } = deps;
    const accounts = await purgeAccounts(deps, signal);
    const sessions = await pruneSessions(db, KEEP_SESSIONS_MS);
    const tokens = await pruneTokens(db);
    await db.delete(rateLimits).where(lt(rateLimits.expire, Date.now()));
    if (accounts + sessions + tokens > 0) log.info({ accounts, sessions, tokens }, 'removed what accounts left');
  });
  jobs.schedule(PURGE_QUEUE, EVERY_HOUR);
}

/** Erases accounts whose time of grace is over, and those that nobody activated. @returns how many */
export async function purgeAccounts({ db, mail }: PurgeDeps, signal: AbortSignal): Promise<number> {
  const isOver = or(
    and(eq(users.status, 'deleted'), lt(users.deletedAt, new Date(Date.now() - GRACE_MS))),
    and(eq(users.status, 'inactive'), lt(users.createdAt, new Date(Date.now() - KEEP_INACTIVE_MS))),
  );
  const due = await db.select({ id: users.id }).from(users).where(isOver);
  let purged = 0;
  for (const { id } of due) {
    signal.throwIfAborted();
    purged += await db.transaction(async (tx) => {
      // One that was brought back or activated meanwhile stays.
      const [user] = await tx
        .select()
        .from(users)
        .where(and(eq(users.id, id), isOver))
        .for('update');
      if (!user) return 0;
      await anonymiseActor(tx, id);
      await tx.delete(users).where(eq(users.id, id));
      if (user.status === 'deleted') {
        await mail.send(tx, { to: user.email, kind: 'account_deleted', name: user.name });
      }
      await recordOnAccount(tx, SYSTEM, undefined, 'purge', { was: user.status });
      return 1;
    });
  }
  return purged;
}
