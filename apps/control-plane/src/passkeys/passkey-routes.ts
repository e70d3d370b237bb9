import { passkeyListSchema, passkeySchema } from '@wrenn/protocol/rest/account';
import { authSchema } from '@wrenn/protocol/rest/auth';
import {
  addPasskeyRequestSchema,
  passkeyLoginRequestSchema,
  passkeyOptionsSchema,
  passkeyParamsSchema,
  updatePasskeyRequestSchema,
} from '@wrenn/protocol/rest/passkeys';
import type { FastifyRequest } from 'fastify';
import { actorOf } from '../access/actor.ts';
import { requireSignedIn } from '../access/principal.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { limitCredentialPath } from '../identity/rate-limits.ts';
import { configuredProviders } from '../oauth/providers.ts';
import { logInWithPasskey, loginOptions } from './passkey-login.ts';
import { listPasskeys, type Passkey } from './passkey-store.ts';
import { changeName, type OwnPasskey, removePasskey } from './passkeys.ts';
import { addPasskey, registrationOptions } from './register-passkey.ts';
import { relyingParty } from './relying-party.ts';

/** Below /v1. */
export function passkeyRoutes(app: Server, deps: RouteDeps): void {
  loginRoutes(app, deps);
  ownPasskeyRoutes(app, deps);
}

function loginRoutes(app: Server, deps: RouteDeps): void {
  const { tokens, settings, rateLimits } = deps;
  const limit = limitCredentialPath(rateLimits, 'passkey');

  app.post(
    '/auth/passkey/options',
    {
      config: { permission: 'public', audit: false, idempotency: 'ignored' },
      preHandler: limit,
      schema: {
        operationId: 'passkeyLoginOptions',
        tags: ['auth'],
        summary: 'Begin a login with a passkey',
        security: [],
        response: { 200: passkeyOptionsSchema, ...errorResponses },
      },
    },
    async (request) => ({ options: { ...(await loginOptions(tokens, relyingParty(request, settings.publicUrl))) } }),
  );

  app.post(
    '/auth/passkey/verify',
    {
      config: { permission: 'public', audit: 'domain', idempotency: 'ignored' },
      preHandler: limit,
      schema: {
        operationId: 'logInWithPasskey',
        tags: ['auth'],
        summary: 'Log in with a passkey',
        description: 'The authenticator has verified its user, so that no second factor is asked for.',
        security: [],
        body: passkeyLoginRequestSchema,
        response: { 200: authSchema, ...errorResponses },
      },
    },
    async (request, reply) => logInWithPasskey(deps, { request, reply }, request.body.credential),
  );
}

function ownPasskeyRoutes(app: Server, { db, tokens, settings }: RouteDeps): void {
  app.post(
    '/me/passkeys/options',
    {
      config: { permission: 'account', audit: false, idempotency: 'ignored' },
      schema: {
        operationId: 'passkeyRegistrationOptions',
        tags: ['account'],
        summary: 'Begin to make a passkey',
        response: { 200: passkeyOptionsSchema, ...errorResponses },
      },
    },
    async (request) => {
      const party = relyingParty(request, settings.publicUrl);
      return { options: { ...(await registrationOptions({ db, tokens }, requireSignedIn(request), party)) } };
    },
  );

  app.post(
    '/me/passkeys',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'addPasskey',
        tags: ['account'],
        summary: 'Keep the passkey that the browser made',
        body: addPasskeyRequestSchema,
        response: { 201: passkeySchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const party = relyingParty(request, settings.publicUrl);
      const passkey = await addPasskey({ db, tokens }, requireSignedIn(request), actorOf(request), party, request.body);
      reply.code(201);
      return toPasskeyBody(passkey);
    },
  );

  app.get(
    '/me/passkeys',
    {
      config: { permission: 'account' },
      schema: {
        operationId: 'listPasskeys',
        tags: ['account'],
        summary: 'Your passkeys',
        response: { 200: passkeyListSchema, ...errorResponses },
      },
    },
    async (request) => (await listPasskeys(db, requireSignedIn(request).id)).map(toPasskeyBody),
  );

  app.patch(
    '/me/passkeys/:id',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'renamePasskey',
        tags: ['account'],
        summary: 'Rename a passkey',
        params: passkeyParamsSchema,
        body: updatePasskeyRequestSchema,
        response: { 200: passkeySchema, ...errorResponses },
      },
    },
    async (request) => {
      const renamed = await changeName(db, ownPasskey(request, request.params.id), request.body.name);
      return toPasskeyBody(renamed);
    },
  );

  app.delete(
    '/me/passkeys/:id',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'deletePasskey',
        tags: ['account'],
        summary: 'Remove a passkey',
        description: 'Refused for the only way to log in.',
        params: passkeyParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const configured = configuredProviders(settings.oauth);
      await removePasskey(db, ownPasskey(request, request.params.id), configured);
      reply.code(204);
      return null;
    },
  );
}

function ownPasskey(request: FastifyRequest, id: string): OwnPasskey {
  return { id, userId: requireSignedIn(request).id, actor: actorOf(request) };
}

function toPasskeyBody({ id, name, createdAt, lastUsedAt }: Passkey) {
  return { id, name, created_at: createdAt.toISOString(), last_used_at: lastUsedAt?.toISOString() ?? null };
}
