import { z } from 'zod';
import { pageQueryFields } from './paging.ts';

/** team: every member sees it; admin: admins and the owner; platform: administrators of the platform. */
export const AUDIT_SCOPES = ['team', 'admin', 'platform'] as const;
export const AUDIT_STATUSES = ['success', 'info', 'warning', 'error'] as const;

const timestamp = z.iso.datetime({ offset: true });

export const auditEntrySchema = z
  .object({
    id: z.string(),
    actor_type: z.enum(['user', 'api_key', 'system']),
    actor_id: z.string().nullable(),
    actor_name: z.string(),
    address: z.string().nullable().meta({ description: 'IP address that it came from.' }),
    resource_type: z.string(),
    resource_id: z.string().nullable(),
    action: z.string(),
    scope: z.enum(AUDIT_SCOPES),
    status: z.enum(AUDIT_STATUSES),
    metadata: z.record(z.string(), z.unknown()),
    request_id: z.string().nullable(),
    created_at: timestamp,
  })
  .meta({ id: 'AuditEntry' });
export type AuditEntryBody = z.output<typeof auditEntrySchema>;

/**
 * Newest first. `next_before` and `next_before_id` are sent as `before` and `before_id` for the next page. With `after`:
 * in the order in which they were written.
 */
export const auditPageSchema = z
  .object({
    items: z.array(auditEntrySchema),
    next_before: timestamp.nullable(),
    next_before_id: z.string().nullable(),
    next_cursor: z.string().nullable().meta({ description: 'Both in one, for `cursor`; null: this is the last page.' }),
    next_after: z.string().nullable().meta({
      description: 'With `after`: for the next request, also where there was nothing new; else null.',
    }),
  })
  .meta({ id: 'AuditPage' });
export type AuditPageBody = z.output<typeof auditPageSchema>;

const list = z.union([z.string(), z.array(z.string()).max(50)]);
const filterFields = {
  resource_type: list.optional().meta({ description: 'Repeatable, or with commas between.' }),
  action: list.optional().meta({ description: 'Repeatable, or with commas between.' }),
  actor: z.string().max(64).optional().meta({ description: 'Id of an actor.' }),
  status: z.enum(AUDIT_STATUSES).optional(),
  resource_id: z.string().max(256).optional(),
  from: timestamp.optional().meta({ description: 'Not before this instant.' }),
  to: timestamp.optional().meta({ description: 'Before this instant.' }),
} as const;

export const auditQuerySchema = z.object({
  ...pageQueryFields,
  before: timestamp.optional(),
  before_id: z.string().max(64).optional(),
  after: z
    .string()
    .max(500)
    .optional()
    .meta({
      description:
        'Follows the log without missing an entry: `start`, `now`, or `next_after` of the answer before. Not together with ' +
        '`cursor` and `before`.',
    }),
  ...filterFields,
});
export type AuditQuery = z.output<typeof auditQuerySchema>;

export const auditExportQuerySchema = z.object({
  format: z.enum(['ndjson', 'csv']).default('ndjson'),
  ...filterFields,
});
