import type { BudgetBody, SetBudgetRequest } from '@wrenn/protocol/rest/usage';
import { eq, sql } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import { requireAllowed } from '../access/in-team.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import { budgets } from '../database/usage-schema.ts';
import type { Jobs } from '../jobs/jobs.ts';
import { lockTeam } from '../teams/team-store.ts';
import { findBudget, readSpending } from './budget-store.ts';
import { BUDGETS_QUEUE } from './budget-watch.ts';
import { judgeBudget, stateOf } from './judge-budget.ts';
import type { Prices } from './prices.ts';

export interface BudgetDeps {
  readonly db: Db;
  readonly jobs: Pick<Jobs, 'enqueue'>;
  readonly settings: { readonly prices: Prices | undefined };
}

/** What a team without a budget is shown of one. */
const NO_BUDGET = { warnAtPct: 80, onExceeded: 'sleep' } as const;

/** The budget of a team for the month that is going on, and what is spent of it. */
export async function readBudget(db: Db, prices: Prices | undefined, teamId: string): Promise<BudgetBody> {
  const budget = await findBudget(db, teamId);
  const { month, spent } = await readSpending(db, prices, teamId);
  const { warnAtPct, onExceeded } = budget ?? NO_BUDGET;
  return {
    team_id: teamId,
    monthly: budget ? Number(budget.monthly) : null,
    warn_at_pct: warnAtPct,
    on_exceeded: onExceeded,
    currency: prices?.currency ?? null,
    month,
    spent,
    state: budget && spent !== null ? stateOf(budget, spent) : 'ok',
    updated_at: budget?.updatedAt.toISOString() ?? null,
  };
}

/**
 * Sets the budget of a team, or takes it away. It has its effect at once: what a raised one allows starts again.
 *
 * @throws WrennError `not_found`, `insufficient_role`
 */
export async function setBudget(
  { db, jobs, settings: { prices } }: BudgetDeps,
  callerId: string,
  teamId: string,
  request: SetBudgetRequest,
  actor: Actor,
): Promise<BudgetBody> {
  return db.transaction(async (tx) => {
    await lockTeam(tx, teamId);
    await requireAllowed(tx, callerId, teamId, 'budget.write');
    const before = await findBudget(tx, teamId);
    const { monthly, warn_at_pct: warnAtPct, on_exceeded: onExceeded } = request;
    if (monthly === null) await tx.delete(budgets).where(eq(budgets.teamId, teamId));
    else {
      const values = { monthly: String(monthly), warnAtPct, onExceeded, updatedAt: sql`now()` };
      await tx
        .insert(budgets)
        .values({ teamId, ...values })
        .onConflictDoUpdate({ target: budgets.teamId, set: values });
    }
    await recordAudit(tx, {
      ...{
        teamId,
        actor,
        resourceType: 'budget',
        resourceId: teamId,
        action: 'set',
        scope: 'admin',
        status: 'success',
      },
      metadata: { ...request, before: before ? Number(before.monthly) : null },
    });
    if (prices && (await judgeBudget(tx, prices, teamId)) === 'put to sleep') {
      await jobs.enqueue(tx, BUDGETS_QUEUE, { teamId }, { singletonKey: teamId });
    }
    return readBudget(tx, prices, teamId);
  });
}
