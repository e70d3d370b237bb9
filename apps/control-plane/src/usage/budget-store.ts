import { and, eq, isNull, type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { teams } from '../database/people-schema.ts';
import { budgets } from '../database/usage-schema.ts';
import { thisMonth } from './check-budget.ts';
import { costOf, type Prices } from './prices.ts';
import { selectUsage, sumUp } from './usage-store.ts';

export type Budget = typeof budgets.$inferSelect;

export async function findBudget(db: Db, teamId: string): Promise<Budget | undefined> {
  const [budget] = await db.select().from(budgets).where(eq(budgets.teamId, teamId));
  return budget;
}

/** Nobody else judges or changes it until the transaction ends. */
export async function lockBudget(tx: Db, teamId: string): Promise<Budget | undefined> {
  const [budget] = await tx.select().from(budgets).where(eq(budgets.teamId, teamId)).for('update');
  return budget;
}

/** Ids of the teams that have a budget. */
export async function listBudgetTeams(db: Db): Promise<string[]> {
  const rows = await db
    .select({ id: teams.id })
    .from(budgets)
    .innerJoin(teams, and(eq(teams.id, budgets.teamId), isNull(teams.deletedAt)))
    .orderBy(teams.id);
  return rows.map(({ id }) => id);
}

/** What a team has spent in a month, UTC, until now. */
export interface Spending {
  /** First day of the month, as `2026-03-01`. */
  readonly month: string;
  /** In the currency of the prices; null: none are set. */
  readonly spent: number | null;
}

/** In the month that is going on. */
export async function readSpending(db: Db, prices: Prices | undefined, teamId: string): Promise<Spending> {
  const day = (of: SQL) => sql`to_char(${of}, 'YYYY-MM-DD')`;
  const { rows } = await db.execute<{ month: string; today: string }>(
    sql`SELECT ${day(thisMonth)} AS month, ${day(sql`wrenn_now() AT TIME ZONE 'UTC'`)} AS today`,
  );
  const [clock] = rows;
  if (!clock) throw new Error('SELECT gave no row');
  const { month, today } = clock;
  if (!prices) return { month, spent: null };
  const used = await selectUsage(db, teamId, { from: month, to: today }, { by: 'team' });
  return { month, spent: costOf(sumUp(used), prices) };
}
