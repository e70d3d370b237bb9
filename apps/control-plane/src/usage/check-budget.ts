import { WrennError } from '@wrenn/protocol/errors';
import { and, eq, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { budgets } from '../database/usage-schema.ts';

/** First day of the month that is going on, UTC, by the clock of the ledger. */
export const thisMonth = sql<string>`date_trunc('month', wrenn_now() AT TIME ZONE 'UTC')::date`;

/**
 * Refuses what would start a capsule of a team whose budget puts capsules to sleep and was found used up this month. Only
 * where usage has a cost.
 *
 * @throws WrennError `budget_exceeded`
 */
export async function checkBudget(tx: Db, teamId: string): Promise<void> {
  const exceeded = await tx
    .select({ teamId: budgets.teamId })
    .from(budgets)
    .where(
      and(eq(budgets.teamId, teamId), eq(budgets.onExceeded, 'sleep'), sql`${budgets.exceededMonth} = ${thisMonth}`),
    );
  if (exceeded.length > 0) throw new WrennError('budget_exceeded');
}
