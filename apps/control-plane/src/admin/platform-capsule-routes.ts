import { capsuleParamsSchema } from '@wrenn/protocol/rest/capsule';
import { createSnapshotRequestSchema, snapshotSchema } from '@wrenn/protocol/rest/sleep';
import type { RouteShorthandOptions } from 'fastify';
import { capsuleRoutes } from '../capsules/capsule-routes.ts';
import { fileRoutes } from '../guest/file-routes.ts';
import { processRoutes } from '../guest/process-routes.ts';
import { ptyRoute } from '../guest/pty-route.ts';
import { streamRoutes } from '../guest/stream-routes.ts';
import { emptyBody, idempotencyHeaders } from '../http/request-parts.ts';
import { errorResponses, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { snapshotRoutes, takeSnapshot } from '../snapshots/snapshot-routes.ts';

/**
 * Capsules of the platform itself: the routes of every team's capsules, below /admin and for administrators. The guard
 * sets the platform's team as the one that they are asked for.
 */
export function platformCapsuleRoutes(app: Server, deps: RouteDeps): void {
  const admin = forAdministrators(app);
  capsuleRoutes(admin, deps);
  processRoutes(admin, deps);
  streamRoutes(admin, deps);
  ptyRoute(admin, deps);
  fileRoutes(admin, deps);
  snapshotRoutes(admin, deps);
  snapshotRoute(admin, deps);
}

const VERBS = ['get', 'post', 'put', 'patch', 'delete'] as const;
type Verb = (typeof VERBS)[number];
type AddRoute = (url: string, options: RouteShorthandOptions, handler: unknown) => unknown;

/** The server as functions that add routes see it; what they add is of the platform. */
function forAdministrators(app: Server): Server {
  return new Proxy(app, {
    get: (target, name) => {
      if (!VERBS.some((verb) => verb === name)) return Reflect.get(target, name);
      const add = target[name as Verb].bind(target) as AddRoute;
      return (url: string, options: RouteShorthandOptions, handler: unknown) =>
        add(`/admin${url}`, ofPlatform(options), handler);
    },
  });
}

function ofPlatform({ config, schema, ...options }: RouteShorthandOptions): RouteShorthandOptions {
  const name = schema?.operationId ?? '';
  return {
    ...options,
    config: { ...config, permission: 'platform', lasts: config?.permission === 'capsule.access' },
    schema: { ...schema, operationId: `admin${name.charAt(0).toUpperCase()}${name.slice(1)}`, tags: ['admin'] },
  };
}

function snapshotRoute(app: Server, { capsules }: RouteDeps): void {
  app.post(
    '/capsules/:id/snapshot',
    {
      config: { permission: 'snapshot.write', audit: { resource: 'snapshot', action: 'create', by: 'domain' } },
      schema: {
        operationId: 'snapshotCapsule',
        tags: ['admin'],
        summary: 'Keep the state of a capsule of the platform as a template that every team can use',
        params: capsuleParamsSchema,
        headers: idempotencyHeaders,
        body: createSnapshotRequestSchema,
        response: { 201: snapshotSchema, ...errorResponses },
      },
      preValidation: emptyBody,
    },
    async (request, reply) => {
      const { params, body, headers } = request;
      return takeSnapshot(capsules, request, reply, params.id, body.name, headers['idempotency-key']);
    },
  );
}
