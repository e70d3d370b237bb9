import { z } from 'zod';

const timestamp = z.iso.datetime({ offset: true });
const date = z.iso.date();

const range = {
  from: date.optional().meta({ description: 'First day, UTC. Default: 29 days ago.' }),
  to: date.optional().meta({ description: 'Last day, UTC. Default: today.' }),
} as const;

/** `GET /v1/capsules/usage`: at most 92 days. */
export const usageQuerySchema = z.object({
  ...range,
  group_by: z.enum(['day', 'capsule', 'label']).default('day'),
  label: z.string().min(1).max(64).optional().meta({ description: 'Key of the label to group by.' }),
  format: z.enum(['json', 'csv']).default('json'),
});
export type UsageQuery = z.output<typeof usageQuerySchema>;
export const usageExportQuerySchema = usageQuerySchema.omit({ format: true });

/** `GET /v1/admin/usage`. */
export const adminUsageQuerySchema = usageQuerySchema.pick({ format: true }).extend(range);

/** Whole seconds, exact, from the ledger of state changes. Each figure is rounded once, after everything was summed. */
export const usageFiguresSchema = z.object({
  vcpu_seconds: z.int(),
  memory_mb_seconds: z
    .int()
    .meta({ description: 'Running: all of it. Asleep: half of it, rounded up for each capsule.' }),
  disk_mb_seconds: z.int(),
  egress_bytes: z.int(),
  cpu_minutes: z.number().meta({ description: 'vCPU-seconds by 60.' }),
  ram_mb_minutes: z.number(),
  cost: z.number().nullable().meta({ description: 'By the prices that the platform has set; null: none are.' }),
});
export type UsageFigures = z.output<typeof usageFiguresSchema>;

const currency = z.string().nullable().meta({ description: 'Of the cost; null: no prices are set.' });

export const usageSchema = z
  .object({
    from: date,
    to: date,
    points: z.array(
      usageFiguresSchema.extend({
        date: date.optional().meta({ description: 'Where grouped by day: each one of the range.' }),
        capsule_id: z.string().optional(),
        label: z.string().nullable().optional().meta({ description: 'Its value; null: capsules without that label.' }),
      }),
    ),
    total: usageFiguresSchema.extend({ currency }),
  })
  .meta({ id: 'Usage' });
export type UsageBody = z.output<typeof usageSchema>;

export const adminUsageSchema = z
  .object({
    from: date,
    to: date,
    teams: z.array(usageFiguresSchema.extend({ team_id: z.string(), team_name: z.string().nullable() })),
    total: usageFiguresSchema.extend({ currency }),
  })
  .meta({ id: 'AdminUsage' });
export type AdminUsageBody = z.output<typeof adminUsageSchema>;

/** What a team has bought, and what its capsules hold of it now. `GET /v1/teams/{id}/pool`. */
export const poolSchema = z
  .object({
    team_id: z.string(),
    limits: z
      .object({
        vcpus: z.int().nullable(),
        memory_mb: z.int().nullable(),
        disk_mb: z.int().nullable(),
      })
      .meta({ description: 'Null: no limit.' }),
    used: z.object({ vcpus: z.int(), memory_mb: z.int(), disk_mb: z.int() }),
    updated_at: timestamp.nullable(),
  })
  .meta({ id: 'Pool' });
export type PoolBody = z.output<typeof poolSchema>;

const limit = z.int().min(0).max(1_000_000_000).nullable();

/** `PUT /v1/admin/teams/{id}/pool`. All null: no limits. */
export const setPoolRequestSchema = z
  .object({ vcpus: limit, memory_mb: limit, disk_mb: limit })
  .meta({ id: 'SetPoolRequest' });
export type SetPoolRequest = z.output<typeof setPoolRequestSchema>;

const monthly = z.number().min(0).max(1e12).nullable();
const warnAtPct = z.int().min(1).max(100);
const onExceeded = z.enum(['warn', 'sleep']).meta({
  description: 'sleep: running capsules are paused, and none starts. Nothing is ever destroyed.',
});

/** `PUT /v1/teams/{id}/budget`: of a calendar month, UTC. */
export const setBudgetRequestSchema = z
  .object({
    monthly: monthly.meta({ description: 'In the currency of the prices; null: no budget.' }),
    warn_at_pct: warnAtPct.default(80),
    on_exceeded: onExceeded.default('sleep'),
  })
  .meta({ id: 'SetBudgetRequest' });
export type SetBudgetRequest = z.output<typeof setBudgetRequestSchema>;

export const budgetSchema = z
  .object({
    team_id: z.string(),
    monthly: monthly.meta({ description: 'Null: no budget.' }),
    warn_at_pct: warnAtPct,
    on_exceeded: onExceeded,
    currency: z.string().nullable(),
    month: date.meta({ description: 'First day of the month that is going on.' }),
    spent: z.number().nullable().meta({ description: 'In that month until now; null: no prices are set.' }),
    state: z.enum(['ok', 'warned', 'exceeded']).meta({
      description:
        'exceeded: where `on_exceeded` is sleep nothing starts until the month ends or the budget is raised.',
    }),
    updated_at: timestamp.nullable(),
  })
  .meta({ id: 'Budget' });
export type BudgetBody = z.output<typeof budgetSchema>;
