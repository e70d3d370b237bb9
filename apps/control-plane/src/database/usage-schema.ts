import { sql } from 'drizzle-orm';
import { bigint, date, integer, jsonb, numeric, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';
import { instant } from './columns.ts';

/** The ledger: what each capsule held, from when to when. Kept by a trigger on capsules. */
export const usageIntervals = pgTable('usage_intervals', {
  id: bigint({ mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
  capsuleId: text('capsule_id').notNull(),
  teamId: text('team_id').notNull(),
  labels: jsonb().$type<Record<string, string>>().notNull(),
  state: text({ enum: ['running', 'asleep'] }).notNull(),
  vcpus: integer().notNull(),
  memoryMb: integer('memory_mb').notNull(),
  diskMb: integer('disk_mb').notNull(),
  startedAt: instant('started_at').notNull(),
  /** Null: it still does. */
  endedAt: instant('ended_at'),
});

/** Sums of one capsule with the same labels and one day, UTC, in units times microseconds: nothing is rounded twice. */
export const dailyUsage = pgTable(
  'daily_usage',
  {
    teamId: text('team_id').notNull(),
    day: date().notNull(),
    capsuleId: text('capsule_id').notNull(),
    labels: jsonb().$type<Record<string, string>>().notNull(),
    labelsMd5: text('labels_md5').notNull().generatedAlwaysAs(sql`md5(labels::text)`),
    vcpuUs: numeric('vcpu_us').notNull(),
    memoryMbUs: numeric('memory_mb_us').notNull(),
    diskMbUs: numeric('disk_mb_us').notNull(),
  },
  (table) => [primaryKey({ columns: [table.teamId, table.day, table.capsuleId, table.labelsMd5] })],
);

/** Without a hole between the first and the last. */
export const rolledUpDays = pgTable('rolled_up_days', {
  day: date().primaryKey(),
  rolledUpAt: instant('rolled_up_at').notNull().defaultNow(),
});

export const capsuleEgress = pgTable(
  'capsule_egress',
  {
    capsuleId: text('capsule_id').notNull(),
    teamId: text('team_id').notNull(),
    day: date().notNull(),
    bytes: bigint({ mode: 'number' }).notNull(),
  },
  (table) => [primaryKey({ columns: [table.capsuleId, table.day] })],
);

/** What a team has bought. Null: no limit. */
export const pools = pgTable('pools', {
  teamId: text('team_id').primaryKey(),
  vcpus: integer(),
  memoryMb: bigint('memory_mb', { mode: 'number' }),
  diskMb: bigint('disk_mb', { mode: 'number' }),
  updatedAt: instant('updated_at').notNull().defaultNow(),
});

export const budgets = pgTable('budgets', {
  teamId: text('team_id').primaryKey(),
  /** In the currency of the prices. */
  monthly: numeric().notNull(),
  warnAtPct: integer('warn_at_pct').notNull(),
  onExceeded: text('on_exceeded', { enum: ['warn', 'sleep'] }).notNull(),
  /** First day of the month for which the team was warned. */
  warnedMonth: date('warned_month'),
  exceededMonth: date('exceeded_month'),
  updatedAt: instant('updated_at').notNull().defaultNow(),
});
