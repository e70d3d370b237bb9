import {
  adminParamsSchema,
  adminTeamPageSchema,
  adminUserPageSchema,
  numberedPageQuerySchema,
  setActiveRequestSchema,
  setAdminRequestSchema,
  setByocRequestSchema,
} from '@wrenn/protocol/rest/admin';
import { actorOf } from '../access/actor.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { signedIn } from '../teams/signed-in.ts';
import { pageFacts, toAdminTeamBody, toAdminUserBody } from './admin-bodies.ts';
import { setAdmin } from './administrators.ts';
import { deleteAnyTeam, enableByoc, listTeams } from './teams.ts';
import { listUsers, restoreUser, setActive } from './users.ts';

/** Users and teams of the platform, for its administrators. */
export function adminRoutes(app: Server, deps: RouteDeps): void {
  const config = { permission: 'platform', audit: 'domain' } as const;

  app.get(
    '/admin/teams',
    {
      config: { permission: 'platform' },
      schema: {
        operationId: 'adminListTeams',
        tags: ['admin'],
        summary: 'All teams, deleted ones too, newest first',
        querystring: numberedPageQuerySchema,
        response: { 200: adminTeamPageSchema, ...errorResponses },
      },
    },
    async ({ query }) => {
      const { rows, total } = await listTeams(deps, query);
      return { teams: rows.map(toAdminTeamBody), ...pageFacts(query, total) };
    },
  );

  app.put(
    '/admin/teams/:id/byoc',
    {
      config,
      schema: {
        operationId: 'adminEnableByoc',
        tags: ['admin'],
        summary: 'Let a team bring its own hosts, for good',
        params: adminParamsSchema,
        body: setByocRequestSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await enableByoc(deps, request.params.id, actorOf(request));
      reply.code(204);
      return null;
    },
  );

  app.delete(
    '/admin/teams/:id',
    {
      config,
      schema: {
        operationId: 'adminDeleteTeam',
        tags: ['admin'],
        summary: 'Delete a team and everything in it',
        params: adminParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await deleteAnyTeam(deps, request.params.id, actorOf(request));
      reply.code(204);
      return null;
    },
  );

  app.get(
    '/admin/users',
    {
      config: { permission: 'platform' },
      schema: {
        operationId: 'adminListUsers',
        tags: ['admin'],
        summary: 'All accounts, newest first',
        querystring: numberedPageQuerySchema,
        response: { 200: adminUserPageSchema, ...errorResponses },
      },
    },
    async ({ query }) => {
      const { rows, total } = await listUsers(deps, query);
      return { users: rows.map(toAdminUserBody), ...pageFacts(query, total) };
    },
  );

  app.put(
    '/admin/users/:id/active',
    {
      config,
      schema: {
        operationId: 'adminSetUserActive',
        tags: ['admin'],
        summary: 'Switch an account off or on; not your own',
        description:
          'Off: its sessions and the keys that it made end at once, and the capsules of teams that it owns are destroyed.',
        params: adminParamsSchema,
        body: setActiveRequestSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await setActive(deps, signedIn(request).id, request.params.id, request.body.active, actorOf(request));
      reply.code(204);
      return null;
    },
  );

  app.put(
    '/admin/users/:id/admin',
    {
      config,
      schema: {
        operationId: 'adminSetUserAdmin',
        tags: ['admin'],
        summary: 'Make somebody an administrator of the platform, or one no more; never the last one',
        params: adminParamsSchema,
        body: setAdminRequestSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await setAdmin(deps.db, request.params.id, request.body.admin, actorOf(request), signedIn(request).id);
      reply.code(204);
      return null;
    },
  );

  app.post(
    '/admin/users/:id/restore',
    {
      config,
      schema: {
        operationId: 'adminRestoreUser',
        tags: ['admin'],
        summary: 'Bring back an account that its owner deleted less than 15 days ago; its teams stay deleted',
        params: adminParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await restoreUser(deps, request.params.id, actorOf(request));
      reply.code(204);
      return null;
    },
  );
}
