import { WrennError } from '@wrenn/protocol/errors';
import {
  apiKeyListSchema,
  apiKeyParamsSchema,
  apiKeySchema,
  createApiKeyRequestSchema,
  updateApiKeyRequestSchema,
} from '@wrenn/protocol/rest/api-keys';
import { arrayQuerySchema } from '@wrenn/protocol/rest/paging';
import type { FastifyRequest } from 'fastify';
import { actorOf } from '../access/actor.ts';
import { answerPage } from '../http/cursor.ts';
import { emptyBody } from '../http/request-parts.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { createKey, getKey, type KeyKeeper, listVisibleKeys, revokeKey, updateKey } from './keys.ts';

export function keyRoutes(app: Server, { db }: Pick<RouteDeps, 'db'>): void {
  const config = { permission: 'key.own' } as const;
  const tags = ['api-keys'];

  app.post(
    '/api-keys',
    {
      config,
      schema: {
        operationId: 'createApiKey',
        tags,
        summary: 'Make an API key',
        description: 'The answer is the only one that holds the key itself.',
        body: createApiKeyRequestSchema,
        response: { 201: apiKeySchema, ...errorResponses },
      },
      preValidation: emptyBody,
    },
    async (request, reply) => {
      reply.code(201).header('cache-control', 'no-store');
      return createKey(db, keeperOf(request), request.body);
    },
  );

  app.get(
    '/api-keys',
    {
      config,
      schema: {
        operationId: 'listApiKeys',
        tags,
        summary: "List API keys, newest first: one's own, and for admins and the owner the team's and everybody's",
        querystring: arrayQuerySchema,
        response: { 200: apiKeyListSchema, ...errorResponses },
      },
    },
    async (request, reply) => answerPage(request, reply, await listVisibleKeys(db, keeperOf(request), request.query)),
  );

  app.get(
    '/api-keys/:id',
    {
      config,
      schema: {
        operationId: 'getApiKey',
        tags,
        summary: 'Get what is known of an API key',
        params: apiKeyParamsSchema,
        response: { 200: apiKeySchema, ...errorResponses },
      },
    },
    (request) => getKey(db, keeperOf(request), request.params.id),
  );

  app.patch(
    '/api-keys/:id',
    {
      config,
      schema: {
        operationId: 'updateApiKey',
        tags,
        summary: 'Rename an API key',
        params: apiKeyParamsSchema,
        body: updateApiKeyRequestSchema,
        response: { 200: apiKeySchema, ...errorResponses },
      },
    },
    (request) => updateKey(db, keeperOf(request), request.params.id, request.body.name),
  );

  app.delete(
    '/api-keys/:id',
    {
      config,
      schema: {
        operationId: 'revokeApiKey',
        tags,
        summary: 'Revoke an API key: its next request is refused',
        params: apiKeyParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await revokeKey(db, keeperOf(request), request.params.id);
      reply.code(204);
      return null;
    },
  );
}

function keeperOf(request: FastifyRequest): KeyKeeper {
  const { principal, caller } = request;
  if (principal?.type !== 'user') throw new WrennError('login_required');
  return { user: principal, teamId: caller.teamId, actor: actorOf(request) };
}
