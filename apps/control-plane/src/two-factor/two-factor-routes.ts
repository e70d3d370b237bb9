import { confirmTwoFactorRequestSchema, recoveryCodesSchema, twoFactorSetupSchema } from '@wrenn/protocol/rest/account';
import { authSchema, twoFactorLoginRequestSchema } from '@wrenn/protocol/rest/auth';
import { actorOf } from '../access/actor.ts';
import { requireSignedIn } from '../access/principal.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { limitCredentialPath } from '../identity/rate-limits.ts';
import { beginTwoFactor, confirmTwoFactor, disableTwoFactor, renewRecoveryCodes } from './two-factor.ts';
import { loginWithSecondFactor } from './two-factor-login.ts';

/** Below /v1. */
export function twoFactorRoutes(app: Server, deps: RouteDeps): void {
  const { rateLimits, settings } = deps;

  app.post(
    '/auth/two-factor',
    {
      config: { permission: 'public', audit: 'domain', idempotency: 'ignored' },
      preHandler: limitCredentialPath(rateLimits, 'two_factor'),
      schema: {
        operationId: 'loginWithSecondFactor',
        tags: ['auth'],
        summary: 'Second step of a login',
        description:
          'With the `challenge` of the answer `two_factor_required`, and a code of the authenticator or a recovery code. ' +
          'Each works once; wrong ones lock the account for a while.',
        security: [],
        body: twoFactorLoginRequestSchema,
        response: { 200: authSchema, ...errorResponses },
      },
    },
    async (request, reply) => loginWithSecondFactor(deps, { request, reply }, request.body),
  );

  app.post(
    '/me/two-factor',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'beginTwoFactor',
        tags: ['account'],
        summary: 'Begin to set up an authenticator',
        description: 'Logins ask for it once POST /v1/me/two-factor/confirm had a code of it.',
        response: { 200: twoFactorSetupSchema, ...errorResponses },
      },
    },
    async (request) => {
      const issuer = issuerAt(new URL(settings.publicUrl ?? `${request.protocol}://${request.host}`));
      const { secret, uri } = await beginTwoFactor(deps, requireSignedIn(request), issuer);
      return { secret, otpauth_uri: uri };
    },
  );

  app.post(
    '/me/two-factor/confirm',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'confirmTwoFactor',
        tags: ['account'],
        summary: 'Switch two-factor authentication on',
        body: confirmTwoFactorRequestSchema,
        response: { 200: recoveryCodesSchema, ...errorResponses },
      },
    },
    async (request) => ({
      recovery_codes: await confirmTwoFactor(deps, requireSignedIn(request), actorOf(request), request.body.code),
    }),
  );

  app.post(
    '/me/two-factor/recovery-codes',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'renewRecoveryCodes',
        tags: ['account'],
        summary: 'New recovery codes in place of the old ones',
        body: confirmTwoFactorRequestSchema,
        response: { 200: recoveryCodesSchema, ...errorResponses },
      },
    },
    async (request) => ({
      recovery_codes: await renewRecoveryCodes(deps, requireSignedIn(request), actorOf(request), request.body.code),
    }),
  );

  app.delete(
    '/me/two-factor',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'disableTwoFactor',
        tags: ['account'],
        summary: 'Switch two-factor authentication off',
        body: confirmTwoFactorRequestSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await disableTwoFactor(deps, requireSignedIn(request), actorOf(request), request.body.code);
      reply.code(204);
      return null;
    },
  );
}

/** This platform by the name that authenticators show. A colon would end it: in an otpauth URI the account follows. */
function issuerAt({ hostname }: URL): string {
  return hostname.includes(':') ? 'Wrenn' : `Wrenn (${hostname})`;
}
