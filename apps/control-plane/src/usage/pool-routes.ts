import { adminParamsSchema } from '@wrenn/protocol/rest/admin';
import { teamParamsSchema } from '@wrenn/protocol/rest/teams';
import { poolSchema, setPoolRequestSchema } from '@wrenn/protocol/rest/usage';
import { actorOf } from '../access/actor.ts';
import { errorResponses, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { readAnyPool, readPool, setPool } from './pools.ts';

export function poolRoutes(app: Server, { db }: RouteDeps): void {
  app.get(
    '/teams/:id/pool',
    {
      config: { permission: 'pool.read', teamParam: 'id' },
      schema: {
        operationId: 'getPool',
        tags: ['usage'],
        summary: 'What a team has bought, and what its capsules hold of it now',
        description:
          'Running capsules hold all of their vCPUs and memory, sleeping ones half of their memory, rounded up for each; ' +
          'both hold their disk.',
        params: teamParamsSchema,
        response: { 200: poolSchema, ...errorResponses },
      },
    },
    ({ params }) => readPool(db, params.id),
  );

  app.get(
    '/admin/teams/:id/pool',
    {
      config: { permission: 'platform' },
      schema: {
        operationId: 'adminGetPool',
        tags: ['admin'],
        summary: 'The pool of any team',
        params: adminParamsSchema,
        response: { 200: poolSchema, ...errorResponses },
      },
    },
    ({ params }) => readAnyPool(db, params.id),
  );

  app.put(
    '/admin/teams/:id/pool',
    {
      config: { permission: 'platform', audit: 'domain' },
      schema: {
        operationId: 'adminSetPool',
        tags: ['admin'],
        summary: 'Say how much a team may use',
        description:
          'Capsules that hold more already go on; what does not fit is refused with `pool_exhausted` until they hold less.',
        params: adminParamsSchema,
        body: setPoolRequestSchema,
        response: { 200: poolSchema, ...errorResponses },
      },
    },
    (request) => setPool(db, request.params.id, request.body, actorOf(request)),
  );
}
