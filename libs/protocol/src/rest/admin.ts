import { z } from 'zod';

const timestamp = z.iso.datetime({ offset: true });

/** Pages of the administrators' lists are numbered, as their clients have always known them. */
export const numberedPageQuerySchema = z.object({
  page: z.coerce.number().int().min(1).max(100_000).default(1),
  per_page: z.coerce.number().int().min(1).max(100).default(100),
});
export type NumberedPage = z.output<typeof numberedPageQuerySchema>;

const pageFields = {
  total: z.int(),
  page: z.int(),
  per_page: z.int(),
  total_pages: z.int(),
} as const;

export const adminTeamSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    slug: z.string(),
    is_byoc: z.boolean(),
    created_at: timestamp,
    deleted_at: timestamp.nullable(),
    member_count: z.int(),
    owner_name: z.string().nullable(),
    owner_email: z.string().nullable(),
    active_sandbox_count: z.int().meta({ description: 'Capsules that have not ended, sleeping ones too.' }),
    channel_count: z.int(),
  })
  .meta({ id: 'AdminTeam' });
export const adminTeamPageSchema = z
  .object({ teams: z.array(adminTeamSchema), ...pageFields })
  .meta({ id: 'AdminTeamPage' });
/** `PUT /v1/admin/teams/{id}/byoc`: it is not taken back, since hosts of the team may be there. */
export const setByocRequestSchema = z.object({ enabled: z.literal(true) }).meta({ id: 'SetByocRequest' });

export const USER_STATUSES = ['inactive', 'active', 'disabled', 'deleted'] as const;

export const adminUserSchema = z
  .object({
    id: z.string(),
    email: z.string(),
    name: z.string(),
    is_admin: z.boolean(),
    status: z.enum(USER_STATUSES),
    created_at: timestamp,
    last_login_at: timestamp.nullable(),
    deleted_at: timestamp.nullable(),
    teams_joined: z.int(),
    teams_owned: z.int(),
  })
  .meta({ id: 'AdminUser' });
export const adminUserPageSchema = z
  .object({ users: z.array(adminUserSchema), ...pageFields })
  .meta({ id: 'AdminUserPage' });
export const setActiveRequestSchema = z.object({ active: z.boolean() }).meta({ id: 'SetActiveRequest' });
export const setAdminRequestSchema = z.object({ admin: z.boolean() }).meta({ id: 'SetAdminRequest' });

export const MAIL_STATUSES = ['queued', 'sent', 'held', 'failed'] as const;

export const adminMailSchema = z
  .object({
    id: z.string(),
    to: z.string(),
    kind: z.string(),
    subject: z.string(),
    status: z.enum(MAIL_STATUSES).meta({ description: 'held: there is no mail server, so that you pass the link on.' }),
    attempts: z.int(),
    error: z.string().nullable(),
    link: z.string().nullable().meta({ description: 'As long as it works and the mail was not sent.' }),
    created_at: timestamp,
    expires_at: timestamp.nullable(),
    sent_at: timestamp.nullable(),
  })
  .meta({ id: 'AdminMail' });
export const adminMailQuerySchema = z.object({
  status: z.enum(MAIL_STATUSES).optional(),
  limit: z.coerce.number().int().min(1).max(200).default(50),
  cursor: z.string().max(500).optional(),
});
export const adminMailPageSchema = z
  .object({ items: z.array(adminMailSchema), next_cursor: z.string().nullable() })
  .meta({ id: 'AdminMailPage' });

export const adminParamsSchema = z.object({ id: z.string().max(64) });
