import { z } from 'zod';
import { teamRoleSchema } from './teams.ts';

const timestamp = z.iso.datetime({ offset: true });

export const emailSchema = z
  .email()
  .max(320)
  .meta({ examples: ['ada@example.com'] });
export const passwordSchema = z.string().min(8).max(1024);
export const userNameSchema = z.string().trim().min(1).max(100);
const tokenSchema = z.string().min(1).max(500);

/** What a login gives: the shape that Wrenn's clients have always known, and what was added to it. */
export const authSchema = z
  .object({
    token: z.string().meta({ description: 'Send it as Authorization: Bearer.' }),
    user_id: z.string(),
    team_id: z.string().nullable().meta({ description: 'The team that the token is for; null: the user is in none.' }),
    role: teamRoleSchema.nullable().meta({ description: 'Role in that team.' }),
    email: z.string(),
    name: z.string(),
    is_admin: z.boolean().meta({ description: 'Administrator of the platform.' }),
    session_id: z.string(),
    expires_at: timestamp,
  })
  .meta({ id: 'Auth' });
export type AuthBody = z.output<typeof authSchema>;

export const messageSchema = z.object({ message: z.string() }).meta({ id: 'Message' });

/** `POST /v1/auth/signup`: the same answer whether or not the address has an account. */
export const signUpRequestSchema = z
  .object({
    email: emailSchema,
    password: passwordSchema,
    name: userNameSchema,
    invitation: tokenSchema
      .optional()
      .meta({ description: 'Token of an invitation: its team becomes the default one.' }),
  })
  .meta({ id: 'SignUpRequest' });
export const activateRequestSchema = z.object({ token: tokenSchema }).meta({ id: 'ActivateRequest' });
export const loginRequestSchema = z
  .object({ email: emailSchema, password: z.string().min(1).max(1024) })
  .meta({ id: 'LoginRequest' });
/** `POST /v1/auth/two-factor`: the second step of a login; `challenge` is in the details of `two_factor_required`. */
export const twoFactorLoginRequestSchema = z
  .object({
    challenge: tokenSchema,
    code: z.string().min(6).max(40).meta({ description: 'Of the authenticator, or a recovery code.' }),
  })
  .meta({ id: 'TwoFactorLoginRequest' });
export const switchTeamRequestSchema = z.object({ team_id: z.string() }).meta({ id: 'SwitchTeamRequest' });
/** `POST /v1/me/password/reset`: always 204. */
export const resetPasswordRequestSchema = z.object({ email: emailSchema }).meta({ id: 'ResetPasswordRequest' });
export const confirmResetRequestSchema = z
  .object({ token: tokenSchema, new_password: passwordSchema })
  .meta({ id: 'ConfirmResetRequest' });

/** `GET /v1/auth/providers`: what a login page can offer. */
export const providersSchema = z
  .object({
    providers: z.array(z.object({ id: z.string(), name: z.string(), login_path: z.string() })),
    password: z.boolean(),
    passkeys: z.boolean(),
    sign_up: z.enum(['open', 'invited']),
  })
  .meta({ id: 'LoginMethods' });
