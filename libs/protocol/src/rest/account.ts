import { z } from 'zod';
import { passwordSchema, userNameSchema } from './auth.ts';
import { teamRoleSchema } from './teams.ts';

const timestamp = z.iso.datetime({ offset: true });

/** `GET /v1/me`. */
export const meSchema = z
  .object({
    user_id: z.string(),
    name: z.string(),
    email: z.string(),
    is_admin: z.boolean(),
    has_password: z.boolean(),
    providers: z.array(z.string()).meta({ description: 'Linked providers.' }),
    two_factor: z.boolean(),
    passkeys: z.int().meta({ description: 'How many there are.' }),
    team_id: z.string().nullable(),
    role: teamRoleSchema.nullable(),
    created_at: timestamp,
  })
  .meta({ id: 'Me' });

export const updateMeRequestSchema = z.object({ name: userNameSchema }).meta({ id: 'UpdateMeRequest' });
export const deleteMeRequestSchema = z
  .object({ confirmation: z.string().meta({ description: 'The e-mail address of the account.' }) })
  .meta({ id: 'DeleteMeRequest' });
export const changePasswordRequestSchema = z
  .object({
    current_password: z.string().max(1024).optional().meta({ description: 'Needed where the account has one.' }),
    new_password: passwordSchema,
    confirm_password: z
      .string()
      .max(1024)
      .optional()
      .meta({ description: 'The new one again; needed where there was none.' }),
  })
  .meta({ id: 'ChangePasswordRequest' });

export const sessionSchema = z
  .object({
    id: z.string(),
    method: z.string().meta({ description: 'password, activation, passkey, or the id of a provider.' }),
    address: z.string().nullable(),
    user_agent: z.string().nullable(),
    created_at: timestamp,
    last_seen_at: timestamp,
    expires_at: timestamp,
    current: z.boolean().meta({ description: 'The session of this request.' }),
  })
  .meta({ id: 'Session' });
export const sessionListSchema = z.array(sessionSchema);
export const sessionParamsSchema = z.object({ id: z.string().max(64) });

/** `POST /v1/me/two-factor`: begins; a code confirms. */
export const twoFactorSetupSchema = z
  .object({ secret: z.string(), otpauth_uri: z.string().meta({ description: 'For the QR code of an authenticator.' }) })
  .meta({ id: 'TwoFactorSetup' });
export const confirmTwoFactorRequestSchema = z
  .object({ code: z.string().min(6).max(40) })
  .meta({ id: 'ConfirmTwoFactorRequest' });
export const recoveryCodesSchema = z
  .object({ recovery_codes: z.array(z.string()).meta({ description: 'Shown once; each works once.' }) })
  .meta({ id: 'RecoveryCodes' });

export const passkeySchema = z
  .object({ id: z.string(), name: z.string(), created_at: timestamp, last_used_at: timestamp.nullable() })
  .meta({ id: 'Passkey' });
export const passkeyListSchema = z.array(passkeySchema);
