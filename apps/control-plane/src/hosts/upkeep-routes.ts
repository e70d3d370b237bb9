import {
  deleteHostQuerySchema,
  deletePreviewSchema,
  drainHostRequestSchema,
  hostParamsSchema,
  hostSchema,
} from '@wrenn/protocol/rest/hosts';
import type { FastifyRequest } from 'fastify';
import { clientGone } from '../http/client-gone.ts';
import { emptyBody } from '../http/request-parts.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { deleteHost, previewDelete } from './delete-host.ts';
import { beginDrain, endDrain } from './drain.ts';
import { toHostBody } from './host-body.ts';
import { getHost } from './host-rows.ts';
import { viewerOf } from './host-viewer.ts';

/** How a host is emptied and taken away. */
export function upkeepRoutes(app: Server, deps: Pick<RouteDeps, 'db' | 'settings' | 'jobs' | 'capsules'>): void {
  const { db } = deps;
  const config = { permission: 'host.write', audit: 'domain' } as const;
  const tags = ['hosts'];
  const params = hostParamsSchema;

  app.post(
    '/hosts/:id/drain',
    {
      config,
      schema: {
        operationId: 'drainHost',
        tags,
        summary: 'Put every capsule of a host to sleep, and give it no new ones',
        description: 'Goes on after the answer; the host says how many run and sleep on it. Ends with undrain.',
        params,
        body: drainHostRequestSchema,
        response: { 202: hostSchema, ...errorResponses },
      },
      preValidation: emptyBody,
    },
    async (request, reply) => {
      await beginDrain(deps, viewerOf(request), request.params.id, request.body.mode);
      reply.code(202);
      return bodyOf(request, request.params.id);
    },
  );

  app.post(
    '/hosts/:id/undrain',
    {
      config,
      schema: {
        operationId: 'undrainHost',
        tags,
        summary: 'Use a host again that was drained',
        params,
        response: { 200: hostSchema, ...errorResponses },
      },
    },
    async (request) => {
      await endDrain(db, viewerOf(request), request.params.id);
      return bodyOf(request, request.params.id);
    },
  );

  app.get(
    '/hosts/:id/delete-preview',
    {
      config: { permission: 'host.write' },
      schema: {
        operationId: 'previewHostDelete',
        tags,
        summary: 'What would be lost with a host',
        params,
        response: { 200: deletePreviewSchema, ...errorResponses },
      },
    },
    async (request) => {
      const { host, capsules, snapshots } = await previewDelete(db, viewerOf(request), request.params.id);
      const sleeping = capsules.filter(({ status }) => ASLEEP.has(status)).length;
      return {
        host: toHostBody(host, deps.settings.placement),
        sandbox_ids: capsules.map(({ id }) => id),
        ...{ running: capsules.length - sleeping, sleeping, snapshots: [...snapshots] },
      };
    },
  );

  app.delete(
    '/hosts/:id',
    {
      config,
      schema: {
        operationId: 'deleteHost',
        tags,
        summary: 'Take a host out of the platform',
        description: 'With force=true its capsules end, also those that sleep on it. Those in the object store stay.',
        params,
        querystring: deleteHostQuerySchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { force } = request.query;
      await deleteHost(deps.capsules, viewerOf(request), request.params.id, { force }, clientGone(request, reply));
      reply.code(204);
      return null;
    },
  );

  async function bodyOf(request: FastifyRequest, id: string) {
    return toHostBody(await getHost(db, viewerOf(request), id), deps.settings.placement);
  }
}

/** States in which a capsule holds no CPU. */
const ASLEEP: ReadonlySet<string> = new Set(['paused', 'hibernating', 'error']);
