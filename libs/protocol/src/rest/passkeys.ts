import { z } from 'zod';

export const passkeyNameSchema = z.string().trim().min(1).max(100);
export const passkeyParamsSchema = z.object({ id: z.string().max(100) });

const base64url = (maxBytes: number) =>
  z
    .string()
    .regex(/^[A-Za-z0-9_-]*$/, 'must be base64url')
    .max(Math.ceil((maxBytes * 4) / 3));

const CREDENTIAL_ID_BYTES = 1023;
const credentialIdSchema = base64url(CREDENTIAL_ID_BYTES).min(1);
const TRANSPORTS = ['ble', 'cable', 'hybrid', 'internal', 'nfc', 'smart-card', 'usb'] as const;
/** Ways to an authenticator that nobody knows yet are of no use. */
const transportsSchema = z
  .array(z.string().max(50))
  .max(20)
  .transform((given) => TRANSPORTS.filter((transport) => given.includes(transport)));

const credentialFields = {
  id: credentialIdSchema,
  rawId: credentialIdSchema,
  type: z.literal('public-key'),
  clientExtensionResults: z.looseObject({}).default({}),
  authenticatorAttachment: z.enum(['cross-platform', 'platform']).optional().catch(undefined),
};

/** What `PublicKeyCredential.toJSON()` gives after `navigator.credentials.create()`. */
export const registrationCredentialSchema = z
  .object({
    ...credentialFields,
    response: z.object({
      clientDataJSON: base64url(10_000),
      attestationObject: base64url(65_536),
      transports: transportsSchema.optional(),
    }),
  })
  .meta({ id: 'PasskeyRegistration' });
export type RegistrationCredential = z.output<typeof registrationCredentialSchema>;

/** What it gives after `navigator.credentials.get()`. */
export const loginCredentialSchema = z
  .object({
    ...credentialFields,
    response: z.object({
      clientDataJSON: base64url(10_000),
      authenticatorData: base64url(10_000),
      signature: base64url(10_000),
      userHandle: base64url(64).nullish(),
    }),
  })
  .meta({ id: 'PasskeyLogin' });
export type LoginCredential = z.output<typeof loginCredentialSchema>;

/** `POST /v1/me/passkeys/options` and `POST /v1/auth/passkey/options`. */
export const passkeyOptionsSchema = z
  .object({
    options: z
      .looseObject({ challenge: z.string() })
      .meta({ description: 'For PublicKeyCredential.parseCreationOptionsFromJSON or parseRequestOptionsFromJSON.' }),
  })
  .meta({ id: 'PasskeyOptions' });

/** `POST /v1/me/passkeys`. */
export const addPasskeyRequestSchema = z
  .object({ name: passkeyNameSchema.default('Passkey'), credential: registrationCredentialSchema })
  .meta({ id: 'AddPasskeyRequest' });
export const updatePasskeyRequestSchema = z.object({ name: passkeyNameSchema }).meta({ id: 'UpdatePasskeyRequest' });
/** `POST /v1/auth/passkey/verify`. */
export const passkeyLoginRequestSchema = z
  .object({ credential: loginCredentialSchema })
  .meta({ id: 'PasskeyLoginRequest' });
