import { and, eq, inArray } from 'drizzle-orm';
import { SYSTEM } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import type { Channel, Delivery } from '../database/channel-schema.ts';
import type { Db } from '../database/database.ts';
import { teamMembers, teams, users } from '../database/people-schema.ts';
import type { Attempt, AttemptDeps } from './attempt.ts';
import { disableChannel, holdChannel, lockChannel, markFailing, markWorking } from './channel-store.ts';
import { giveUpAll, recordDeliveryAttempt } from './delivery-store.ts';
import { retryDelayMs } from './retry.ts';

/** A channel that has failed for so long without one success is told nothing more. */
const FAILING_LIMIT_MS = 3 * 24 * 3_600_000;

export interface RecordDeps extends Pick<AttemptDeps, 'sendMail'> {
  /** Only for tests: other times between attempts. */
  readonly retryDelayMs?: (retries: number) => number | undefined;
}

/**
 * Writes down what an attempt brought, and what follows for its delivery and its channel.
 *
 * @returns in how many milliseconds the delivery is repeated; undefined: it is not
 */
export async function recordAttempt(
  db: Db,
  deps: RecordDeps,
  channel: Channel,
  delivery: Delivery,
  { outcome, startedAt, durationMs, also }: Attempt,
): Promise<number | undefined> {
  const { statusCode } = outcome;
  const error = outcome.result === 'taken' ? undefined : outcome.error;
  const row = { startedAt, durationMs, statusCode, error };
  return db.transaction(async (tx) => {
    // Before the delivery, as whoever disables or deletes a channel does it.
    if (!(await lockChannel(tx, channel.teamId, channel.id))) return undefined;
    switch (outcome.result) {
      case 'taken': {
        if (!(await recordDeliveryAttempt(tx, delivery, row, { status: 'delivered' }))) return undefined;
        await also?.(tx);
        if (channel.failingSince || channel.heldUntil) await markWorking(tx, channel.id);
        return undefined;
      }
      case 'gone': {
        if (!(await recordDeliveryAttempt(tx, delivery, row, { status: 'failed' }))) return undefined;
        await disable(tx, deps, channel, outcome.error);
        return undefined;
      }
      case 'held': {
        const { holdMs } = outcome;
        const isOver = startedAt.getTime() + holdMs > delivery.giveUpAt.getTime();
        const next = isOver ? ({ status: 'failed' } as const) : { retryInMs: holdMs, counts: false };
        if (!(await recordDeliveryAttempt(tx, delivery, row, next))) return undefined;
        await markFailing(tx, channel.id, startedAt);
        await holdChannel(tx, channel.id, holdMs);
        return holdMs;
      }
      case 'failed': {
        const retryInMs = (deps.retryDelayMs ?? retryDelayMs)(delivery.retries);
        const next = retryInMs === undefined ? ({ status: 'failed' } as const) : { retryInMs, counts: true };
        if (!(await recordDeliveryAttempt(tx, delivery, row, next))) return undefined;
        const since = await markFailing(tx, channel.id, startedAt);
        if (startedAt.getTime() - since.getTime() <= FAILING_LIMIT_MS) return retryInMs;
        await disable(tx, deps, channel, `it failed for days, at last with: ${outcome.error}`);
        return undefined;
      }
    }
  });
}

/** Keeps a channel silent until somebody enables it again, and tells those who can. */
async function disable(
  tx: Db,
  { sendMail }: Pick<AttemptDeps, 'sendMail'>,
  { id, teamId, name, provider }: Channel,
  reason: string,
): Promise<void> {
  if (!(await disableChannel(tx, id, reason))) return;
  await giveUpAll(tx, id);
  await recordAudit(tx, {
    ...{ teamId, actor: SYSTEM, resourceType: 'channel', resourceId: id, action: 'disable' },
    ...{ scope: 'team', status: 'warning', metadata: { name, provider, reason } },
  });
  for (const { email, userName, teamName } of await listManagers(tx, teamId)) {
    await sendMail(tx, {
      ...{ to: email, name: userName, teamName, kind: 'channel' },
      subject: `The channel ${name} was switched off`,
      paragraphs: [
        `The channel ${name} (${provider}) of the team ${teamName} is told nothing any more: ${reason}.`,
        'Mend it, then enable it again.',
      ],
    });
  }
}

async function listManagers(tx: Db, teamId: string) {
  return tx
    .select({ email: users.email, userName: users.name, teamName: teams.name })
    .from(teamMembers)
    .innerJoin(users, and(eq(users.id, teamMembers.userId), eq(users.status, 'active')))
    .innerJoin(teams, eq(teams.id, teamMembers.teamId))
    .where(and(eq(teamMembers.teamId, teamId), inArray(teamMembers.role, ['owner', 'admin'])));
}
