import { arrayQuerySchema } from '@wrenn/protocol/rest/paging';
import {
  createTeamRequestSchema,
  teamDetailSchema,
  teamListSchema,
  teamParamsSchema,
  teamSchema,
  transferTeamRequestSchema,
  updateTeamRequestSchema,
} from '@wrenn/protocol/rest/teams';
import { actorOf } from '../access/actor.ts';
import { answerPage } from '../http/cursor.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { deleteTeam } from './delete-team.ts';
import { leaveTeam } from './members.ts';
import { signedIn } from './signed-in.ts';
import { toMemberBody, toTeamBody } from './team-body.ts';
import { listMembers, pageTeamsOf } from './team-store.ts';
import { createTeam, renameTeam, requireTeamOf, setDefaultTeam, transferTeam } from './teams.ts';

/** The team of a path is any that the caller is in, and the role there is what counts. */
const ofPath = { teamParam: 'id' } as const;

export function teamRoutes(app: Server, deps: RouteDeps): void {
  const { db } = deps;

  app.get(
    '/teams',
    {
      config: { permission: 'account' },
      schema: {
        operationId: 'listTeams',
        tags: ['teams'],
        summary: 'The teams that you are in, the default one first',
        querystring: arrayQuerySchema,
        response: { 200: teamListSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const page = await pageTeamsOf(db, signedIn(request).id, request.query);
      return answerPage(request, reply, page).map(toTeamBody);
    },
  );

  app.post(
    '/teams',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'createTeam',
        tags: ['teams'],
        summary: 'Make a team, which you own',
        body: createTeamRequestSchema,
        response: { 201: teamSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const made = await createTeam(deps, signedIn(request), request.body.name, actorOf(request));
      reply.code(201);
      return toTeamBody(made);
    },
  );

  app.get(
    '/teams/:id',
    {
      config: { permission: 'team.read', ...ofPath },
      schema: {
        operationId: 'getTeam',
        tags: ['teams'],
        summary: 'A team and its members',
        params: teamParamsSchema,
        response: { 200: teamDetailSchema, ...errorResponses },
      },
    },
    async (request) => {
      const { id } = request.params;
      const team = await requireTeamOf(db, signedIn(request).id, id);
      return { team: toTeamBody(team), members: (await listMembers(db, id)).map(toMemberBody) };
    },
  );

  app.patch(
    '/teams/:id',
    {
      config: { permission: 'team.update', ...ofPath, audit: 'domain' },
      schema: {
        operationId: 'renameTeam',
        tags: ['teams'],
        summary: 'Rename a team',
        params: teamParamsSchema,
        body: updateTeamRequestSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await renameTeam(deps, signedIn(request).id, request.params.id, request.body.name, actorOf(request));
      reply.code(204);
      return null;
    },
  );

  app.delete(
    '/teams/:id',
    {
      config: { permission: 'team.own', ...ofPath, audit: 'domain' },
      schema: {
        operationId: 'deleteTeam',
        tags: ['teams'],
        summary: 'Delete a team and everything in it',
        description:
          'From the answer on nothing of the team authenticates or can be made. Its capsules and snapshots, sleeping ones ' +
          'too, are then destroyed.',
        params: teamParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await deleteTeam(deps, request.params.id, actorOf(request), signedIn(request).id);
      reply.code(204);
      return null;
    },
  );

  app.post(
    '/teams/:id/leave',
    {
      config: { permission: 'team.leave', ...ofPath, audit: 'domain' },
      schema: {
        operationId: 'leaveTeam',
        tags: ['teams'],
        summary: 'Leave a team; its owner cannot',
        params: teamParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await leaveTeam(deps, signedIn(request).id, request.params.id, actorOf(request));
      reply.code(204);
      return null;
    },
  );

  app.post(
    '/teams/:id/transfer',
    {
      config: { permission: 'team.own', ...ofPath, audit: 'domain' },
      schema: {
        operationId: 'transferTeam',
        tags: ['teams'],
        summary: 'Make a member the owner; you become an admin',
        params: teamParamsSchema,
        body: transferTeamRequestSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await transferTeam(deps, signedIn(request), request.params.id, request.body.user_id, actorOf(request));
      reply.code(204);
      return null;
    },
  );

  app.post(
    '/teams/:id/default',
    {
      config: { permission: 'team.read', ...ofPath },
      schema: {
        operationId: 'setDefaultTeam',
        tags: ['teams'],
        summary: 'Make a team the one that your logins are for',
        params: teamParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await setDefaultTeam(deps, signedIn(request).id, request.params.id);
      reply.code(204);
      return null;
    },
  );
}
