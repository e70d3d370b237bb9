import { z } from 'zod';

const challenge = z.string().regex(/^[A-Za-z0-9_-]{43}$/, 'must be the SHA-256 of the verifier in base64url');

export const providerParamsSchema = z.object({
  provider: z.string().max(50).meta({ description: 'github, google or oidc, as GET /v1/auth/providers lists them.' }),
});

/** `GET /auth/oauth/{provider}`. */
export const beginOAuthQuerySchema = z
  .object({
    intent: z
      .enum(['login', 'signup'])
      .default('login')
      .meta({ description: 'A login of an account that nobody has here is no sign-up.' }),
    invitation: z
      .string()
      .regex(/^[\w-]{1,500}$/)
      .optional()
      .meta({ description: 'For a sign-up: token of an invitation.' }),
    cli_port: z.coerce
      .number()
      .int()
      .min(1024)
      .max(65_535)
      .optional()
      .meta({ description: 'For programs: the browser ends at http://127.0.0.1:{cli_port}/callback?code=…&state=….' }),
    cli_state: z
      .string()
      .regex(/^[\x21-\x7e]{1,200}$/, 'must be 1 to 200 printable ASCII characters')
      .optional()
      .meta({ description: 'Comes back with the code.' }),
    cli_challenge: challenge
      .optional()
      .meta({ description: 'SHA-256, in base64url, of the verifier that the exchange of the code must name.' }),
    at_public_url: z
      .literal('1')
      .optional()
      .meta({ description: 'Added by this server when it sends a browser on to its public address.' }),
  })
  .refine((query) => query.cli_port === undefined || (query.cli_state && query.cli_challenge), {
    error: 'cli_port needs cli_state and cli_challenge',
  });
export type BeginOAuthQuery = z.output<typeof beginOAuthQuerySchema>;

/** `GET /auth/oauth/{provider}/callback`: what providers send along is their business. */
export const oauthCallbackQuerySchema = z.looseObject({
  code: z.string().max(4000).optional().catch(undefined),
  state: z.string().max(500).optional().catch(undefined),
  error: z.string().max(500).optional().catch(undefined),
});

/** Why a login or link through a provider ended without one: `error` in the address that the browser is sent to. */
export const OAUTH_PROBLEMS = [
  'access_denied',
  'invalid_state',
  'missing_code',
  'exchange_failed',
  'no_account',
  'email_taken',
  'email_unverified',
  'account_deactivated',
  'sign_up_closed',
  'invalid_invitation',
  'identity_taken',
  'already_linked',
  'rate_limited',
  'internal_error',
] as const;
export type OAuthProblem = (typeof OAUTH_PROBLEMS)[number];

/** `POST /v1/auth/exchange`. */
export const exchangeRequestSchema = z
  .object({
    code: z.string().min(1).max(500),
    verifier: z
      .string()
      .min(43)
      .max(128)
      .optional()
      .meta({ description: 'For programs: what cli_challenge was made of. Pages send their cookie instead.' }),
  })
  .meta({ id: 'ExchangeRequest' });

/** `GET /v1/me/providers/{provider}/connect`. */
export const connectProviderSchema = z
  .object({ auth_url: z.string().meta({ description: 'Where to send the browser that asked, and no other.' }) })
  .meta({ id: 'ConnectProvider' });
