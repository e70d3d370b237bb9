import {
  createHostRequestSchema,
  hostListSchema,
  hostParamsSchema,
  hostSchema,
  hostTagListSchema,
  hostTagParamsSchema,
  hostWithTokenSchema,
  tagRequestSchema,
} from '@wrenn/protocol/rest/hosts';
import { arrayQuerySchema } from '@wrenn/protocol/rest/paging';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { answerPage } from '../http/cursor.ts';
import { emptyBody } from '../http/request-parts.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { setCordoned } from './cordon.ts';
import { createHost, type NewToken, renewToken } from './create-host.ts';
import { toHostBody } from './host-body.ts';
import { getHost, listHosts } from './host-rows.ts';
import { addTag, listTags, removeTag } from './host-tags.ts';
import { viewerOf } from './host-viewer.ts';

/** Hosts, for the platform's administrators and for teams that bring their own. */
export function hostRoutes(app: Server, { db, settings }: Pick<RouteDeps, 'db' | 'settings'>): void {
  const config = { permission: 'host.write', audit: 'domain' } as const;
  const tags = ['hosts'];

  app.post(
    '/hosts',
    {
      config,
      schema: {
        operationId: 'createHost',
        tags,
        summary: 'Make a host, and the token with which its agent registers',
        description: 'regular hosts are the platform’s: only its administrators make them. byoc: hosts of a team.',
        body: createHostRequestSchema,
        response: { 201: hostWithTokenSchema, ...errorResponses },
      },
      preValidation: emptyBody,
    },
    async (request, reply) => answerToken(request, reply, await createHost(db, viewerOf(request), request.body)),
  );

  app.get(
    '/hosts',
    {
      config: { permission: 'host.read' },
      schema: {
        operationId: 'listHosts',
        tags,
        summary: 'Hosts, newest first: all for administrators, for others those of their team',
        querystring: arrayQuerySchema,
        response: { 200: hostListSchema, ...errorResponses },
      },
    },
    async (request, reply) =>
      answerPage(request, reply, await listHosts(db, viewerOf(request), request.query)).map((host) =>
        toHostBody(host, settings.placement),
      ),
  );

  app.get(
    '/hosts/:id',
    {
      config: { permission: 'host.read' },
      schema: {
        operationId: 'getHost',
        tags,
        summary: 'Get a host',
        params: hostParamsSchema,
        response: { 200: hostSchema, ...errorResponses },
      },
    },
    (request) => bodyOf(request, request.params.id),
  );

  app.post(
    '/hosts/:id/token',
    {
      config,
      schema: {
        operationId: 'createHostToken',
        tags,
        summary: 'Make a new registration token',
        description:
          'For a host whose agent has not registered, or lost its credentials. Earlier tokens end at once, credentials when the new token is used.',
        params: hostParamsSchema,
        response: { 201: hostWithTokenSchema, ...errorResponses },
      },
    },
    async (request, reply) => answerToken(request, reply, await renewToken(db, viewerOf(request), request.params.id)),
  );

  app.get(
    '/hosts/:id/tags',
    {
      config: { permission: 'host.read' },
      schema: {
        operationId: 'listHostTags',
        tags,
        summary: 'Tags of a host, in alphabetical order',
        params: hostParamsSchema,
        response: { 200: hostTagListSchema, ...errorResponses },
      },
    },
    (request) => listTags(db, viewerOf(request), request.params.id),
  );

  app.post(
    '/hosts/:id/tags',
    {
      config,
      schema: {
        operationId: 'addHostTag',
        tags,
        summary: 'Tag a host',
        params: hostParamsSchema,
        body: tagRequestSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await addTag(db, viewerOf(request), request.params.id, request.body.tag);
      reply.code(204);
      return null;
    },
  );

  app.delete(
    '/hosts/:id/tags/:tag',
    {
      config,
      schema: {
        operationId: 'removeHostTag',
        tags,
        summary: 'Take a tag off a host',
        params: hostTagParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await removeTag(db, viewerOf(request), request.params.id, request.params.tag);
      reply.code(204);
      return null;
    },
  );

  for (const [verb, isCordoned] of [
    ['cordon', true],
    ['uncordon', false],
  ] as const) {
    app.post(
      `/hosts/:id/${verb}`,
      {
        config,
        schema: {
          operationId: `${verb}Host`,
          tags,
          summary: isCordoned ? 'Give a host no new capsules' : 'Let a host have new capsules again',
          params: hostParamsSchema,
          response: { 200: hostSchema, ...errorResponses },
        },
      },
      async (request) => {
        await setCordoned(db, viewerOf(request), request.params.id, isCordoned);
        return bodyOf(request, request.params.id);
      },
    );
  }

  async function bodyOf(request: FastifyRequest, id: string) {
    return toHostBody(await getHost(db, viewerOf(request), id), settings.placement);
  }

  async function answerToken(request: FastifyRequest, reply: FastifyReply, { hostId, token, expiresAt }: NewToken) {
    reply.code(201).header('cache-control', 'no-store');
    // The team of a new host need not be the one that the caller's token is for.
    const viewer = { ...viewerOf(request), isAdmin: true };
    const host = toHostBody(await getHost(db, viewer, hostId), settings.placement);
    return { host, registration_token: token, expires_at: expiresAt.toISOString() };
  }
}
