import { and, eq } from 'drizzle-orm';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { type Capsule, capsules } from '../database/schema.ts';
import type { Jobs } from '../jobs/jobs.ts';
import { listBudgetTeams } from './budget-store.ts';
import { judgeBudget } from './judge-budget.ts';
import type { Prices } from './prices.ts';

export const BUDGETS_QUEUE = 'usage.budgets';
const EVERY_MINUTE = '* * * * *';
const DEADLINE_MS = 5 * 60_000;

export interface BudgetWatchDeps {
  readonly db: Db;
  readonly prices: Prices;
  /** Has a capsule paused, without waiting for it. */
  readonly pause: (capsule: Pick<Capsule, 'id'>) => Promise<void>;
  readonly log: Logger;
}

/** Has budgets looked after by one of the control planes. Without prices they have no effect. */
export function defineBudgets(
  jobs: Jobs,
  { prices, ...deps }: Omit<BudgetWatchDeps, 'prices'> & { readonly prices: Prices | undefined },
): void {
  jobs.define<{ teamId?: string }>(BUDGETS_QUEUE, { deadlineMs: DEADLINE_MS }, async ({ teamId }, signal) => {
    if (prices) await watchBudgets({ ...deps, prices }, teamId === undefined ? undefined : [teamId], signal);
  });
  jobs.schedule(BUDGETS_QUEUE, EVERY_MINUTE);
}

/**
 * Judges budgets once, and puts the running capsules of teams to sleep whose budget says so. Those that could not be, or
 * that have come to run since, are the next time's.
 *
 * @param teamIds undefined: of all teams
 * @throws AggregateError when a team's could not be judged, or a capsule not be paused, after all others were
 */
export async function watchBudgets(
  { db, prices, pause, log }: BudgetWatchDeps,
  teamIds: readonly string[] | undefined,
  signal: AbortSignal,
): Promise<void> {
  const failures: unknown[] = [];
  const attempt = async (work: () => Promise<void>) => {
    signal.throwIfAborted();
    await work().catch((error: unknown) => failures.push(error));
  };
  for (const teamId of teamIds ?? (await listBudgetTeams(db))) {
    await attempt(async () => {
      const verdict = await db.transaction((tx) => judgeBudget(tx, prices, teamId));
      if (verdict === 'leave') return;
      const running = await listRunning(db, teamId);
      if (running.length > 0) log.info({ team: teamId, capsules: running.length }, 'its budget puts capsules to sleep');
      for (const capsule of running) await attempt(() => pause(capsule));
    });
  }
  if (failures.length > 0) throw new AggregateError(failures, `budgets: ${failures.length} failures`);
}

async function listRunning(db: Db, teamId: string): Promise<Pick<Capsule, 'id'>[]> {
  return db
    .select({ id: capsules.id })
    .from(capsules)
    .where(and(eq(capsules.teamId, teamId), eq(capsules.status, 'running')))
    .orderBy(capsules.id);
}
