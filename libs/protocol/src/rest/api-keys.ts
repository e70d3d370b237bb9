import { z } from 'zod';

/** What a key may be limited to. */
export const KEY_SCOPES = [
  'capsules:read',
  'capsules:write',
  'capsules:access',
  'snapshots:read',
  'snapshots:write',
  'audit:read',
  'channels:write',
  'metrics:read',
  'hosts:read',
  'hosts:write',
] as const;
export type KeyScope = (typeof KEY_SCOPES)[number];

const timestamp = z.iso.datetime({ offset: true });
const scopes = z
  .array(z.enum(KEY_SCOPES))
  .min(1)
  .nullable()
  .meta({ description: 'Null: everything that a key can do.' });

export const apiKeySchema = z
  .object({
    id: z.string(),
    team_id: z.string(),
    name: z.string(),
    key_prefix: z.string(),
    owner: z
      .enum(['team', 'user'])
      .meta({ description: 'user: it can do no more than that person, and ends with the membership.' }),
    user_id: z.string().nullable(),
    scopes,
    created_by: z.string().nullable(),
    creator_email: z.string().nullable(),
    created_at: timestamp,
    expires_at: timestamp.nullable(),
    last_used: timestamp.nullable(),
    key: z.string().optional().meta({ description: 'Only in the answer that made it.' }),
  })
  .meta({ id: 'ApiKey' });
export type ApiKeyBody = z.output<typeof apiKeySchema>;
export const apiKeyListSchema = z.array(apiKeySchema);

export const apiKeyParamsSchema = z.object({ id: z.string().meta({ description: 'Id of the key, not the key.' }) });

const keyName = z.string().trim().min(1).max(100);

export const createApiKeyRequestSchema = z
  .object({
    name: keyName.default('Unnamed API Key'),
    owner: z
      .enum(['team', 'user'])
      .optional()
      .meta({ description: 'team needs the role admin. Default: team for admins and the owner, else user.' }),
    scopes: scopes.default(null),
    expires_in_days: z.int().min(1).max(3650).nullable().default(null).meta({ description: 'Null: never.' }),
  })
  .meta({ id: 'CreateApiKeyRequest' });

/** `PATCH /v1/api-keys/{id}`. */
export const updateApiKeyRequestSchema = z.object({ name: keyName }).meta({ id: 'UpdateApiKeyRequest' });
