import { z } from 'zod';

export const TEAM_ROLES = ['owner', 'admin', 'member'] as const;
export type TeamRole = (typeof TEAM_ROLES)[number];
export const teamRoleSchema = z.enum(TEAM_ROLES);
/** Roles that can be given; `owner` is passed on by a transfer only. */
export const givenRoleSchema = z.enum(['admin', 'member']);

const timestamp = z.iso.datetime({ offset: true });

export const teamNameSchema = z
  .string()
  .trim()
  .regex(/^[\p{L}\p{N} _\-@']{1,128}$/u, "must be 1 to 128 letters, digits, spaces, '_', '-', '@' or \"'\"");

export const teamSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    slug: z.string(),
    is_byoc: z.boolean().meta({ description: 'The team brings its own hosts.' }),
    created_at: timestamp,
    role: teamRoleSchema.meta({ description: 'Role of whoever asks.' }),
    is_default: z.boolean().meta({ description: 'A login of whoever asks is for this team.' }),
  })
  .meta({ id: 'Team' });
export type TeamBody = z.output<typeof teamSchema>;

export const memberSchema = z
  .object({ user_id: z.string(), name: z.string(), email: z.string(), role: teamRoleSchema, joined_at: timestamp })
  .meta({ id: 'TeamMember' });
export type MemberBody = z.output<typeof memberSchema>;

export const teamDetailSchema = z
  .object({ team: teamSchema, members: z.array(memberSchema) })
  .meta({ id: 'TeamDetail' });

export const createTeamRequestSchema = z.object({ name: teamNameSchema }).meta({ id: 'CreateTeamRequest' });
export const updateTeamRequestSchema = z.object({ name: teamNameSchema }).meta({ id: 'UpdateTeamRequest' });
export const addMemberRequestSchema = z
  .object({ email: z.email().max(320), role: givenRoleSchema.default('member') })
  .meta({ id: 'AddMemberRequest' });
export const updateMemberRequestSchema = z.object({ role: givenRoleSchema }).meta({ id: 'UpdateMemberRequest' });
export const transferTeamRequestSchema = z
  .object({ user_id: z.string() })
  .meta({ id: 'TransferTeamRequest', description: 'The member who becomes the owner; the owner becomes an admin.' });

export const invitationSchema = z
  .object({
    id: z.string(),
    team_id: z.string(),
    team_name: z.string(),
    email: z.string().nullable().meta({ description: 'Null: whoever has the link.' }),
    role: givenRoleSchema,
    status: z.enum(['pending', 'accepted', 'revoked', 'expired']),
    invited_by: z.string().nullable().meta({ description: 'Name of who invited.' }),
    created_at: timestamp,
    expires_at: timestamp,
    link: z.string().optional().meta({ description: 'Only in the answer that made it.' }),
    token: z
      .string()
      .optional()
      .meta({ description: 'The same without the address. Only in the answer that made it.' }),
  })
  .meta({ id: 'Invitation' });
export type InvitationBody = z.output<typeof invitationSchema>;

export const createInvitationRequestSchema = z
  .object({
    email: z
      .email()
      .max(320)
      .nullish()
      .meta({ description: 'Gets a mail, and only that account can accept. Default: a link for anybody.' }),
    role: givenRoleSchema.default('member'),
    expires_in_hours: z.int().min(1).max(720).default(168),
  })
  .meta({ id: 'CreateInvitationRequest' });

export const invitationListSchema = z.array(invitationSchema);

/** `POST /v1/teams/{id}/members`: the same shape whether or not the address has an account. */
export const addedMemberSchema = z
  .object({
    status: z.enum(['member', 'invited']).meta({
      description: 'member: somebody who shares another team with you, who is in at once. invited: anybody else.',
    }),
    user_id: z.string().nullable().meta({ description: 'Null: invited.' }),
    name: z.string().meta({ description: 'Of somebody invited the address.' }),
    email: z.string(),
    role: teamRoleSchema,
    joined_at: timestamp.nullable().meta({ description: 'Null: invited.' }),
    invitation_id: z.string().nullable(),
  })
  .meta({ id: 'AddedTeamMember' });

export const teamParamsSchema = z.object({ id: z.string().max(64) });
export const memberParamsSchema = z.object({ id: z.string().max(64), user_id: z.string().max(64) });
export const invitationParamsSchema = z.object({ id: z.string().max(64), invitation_id: z.string().max(64) });
export const teamListSchema = z.array(teamSchema);
export const memberListSchema = z.array(memberSchema);

/** `GET /v1/users/search`. */
export const searchUsersQuerySchema = z.object({ email: z.email().max(320) });
export const foundUsersSchema = z
  .array(z.object({ user_id: z.string(), email: z.string(), name: z.string() }))
  .meta({ id: 'FoundUsers' });

/** `POST /v1/invitations/accept`. */
export const acceptInvitationRequestSchema = z
  .object({ token: z.string().min(1).max(500) })
  .meta({ id: 'AcceptInvitationRequest' });
/** `POST /v1/invitations/preview`: what a link is for, before its holder has an account. */
export const invitationPreviewSchema = z
  .object({
    team_name: z.string(),
    invited_by: z.string().nullable(),
    role: givenRoleSchema,
    email: z.string().nullable(),
    expires_at: timestamp,
  })
  .meta({ id: 'InvitationPreview' });
