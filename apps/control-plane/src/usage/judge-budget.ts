import type { BudgetBody } from '@wrenn/protocol/rest/usage';
import { eq } from 'drizzle-orm';
import { SYSTEM } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import { budgets } from '../database/usage-schema.ts';
import { publishEvent } from '../events/publish.ts';
import { type Budget, lockBudget, readSpending } from './budget-store.ts';
import type { Prices } from './prices.ts';

type BudgetState = BudgetBody['state'];

/** How far a budget is used up. */
export function stateOf({ monthly, warnAtPct }: Pick<Budget, 'monthly' | 'warnAtPct'>, spent: number): BudgetState {
  const limit = Number(monthly);
  if (spent >= limit) return 'exceeded';
  return spent * 100 >= limit * warnAtPct ? 'warned' : 'ok';
}

/**
 * Compares what a team has spent this month with its budget, tells its people where that is news, and from then on has
 * its capsules refused or let start.
 *
 * @param tx a transaction
 * @returns what to do about the team's capsules that run
 */
export async function judgeBudget(tx: Db, prices: Prices, teamId: string): Promise<'leave' | 'put to sleep'> {
  const budget = await lockBudget(tx, teamId);
  if (!budget) return 'leave';
  const { month, spent } = await readSpending(tx, prices, teamId);
  const state = stateOf(budget, spent ?? 0);
  const facts = {
    ...{ month, spent, monthly: Number(budget.monthly), currency: prices.currency },
    on_exceeded: budget.onExceeded,
  };
  // Each once a month, and once more where a raised budget is used up too.
  if (state !== 'ok' && budget.warnedMonth !== month) {
    await tell(tx, teamId, 'warning', { ...facts, warn_at_pct: budget.warnAtPct });
  }
  if (state === 'exceeded' && budget.exceededMonth !== month) await tell(tx, teamId, 'exceeded', facts);
  const marks = {
    warnedMonth: state === 'ok' ? null : month,
    exceededMonth: state === 'exceeded' ? month : null,
  };
  if (marks.warnedMonth !== budget.warnedMonth || marks.exceededMonth !== budget.exceededMonth) {
    await tx.update(budgets).set(marks).where(eq(budgets.teamId, teamId));
  }
  return state === 'exceeded' && budget.onExceeded === 'sleep' ? 'put to sleep' : 'leave';
}

async function tell(tx: Db, teamId: string, action: 'warning' | 'exceeded', data: Record<string, unknown>) {
  await recordAudit(tx, {
    ...{ teamId, actor: SYSTEM, resourceType: 'budget', resourceId: teamId, action },
    ...{ scope: 'admin', status: 'warning', metadata: data },
  });
  await publishEvent(tx, {
    ...{ type: `budget.${action}`, teamId, actor: SYSTEM, resource: { type: 'budget', id: teamId }, data },
  });
}
