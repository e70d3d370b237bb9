import { arrayQuerySchema } from '@wrenn/protocol/rest/paging';
import {
  addedMemberSchema,
  addMemberRequestSchema,
  foundUsersSchema,
  memberListSchema,
  memberParamsSchema,
  searchUsersQuerySchema,
  teamParamsSchema,
  updateMemberRequestSchema,
} from '@wrenn/protocol/rest/teams';
import type { z } from 'zod';
import { actorOf } from '../access/actor.ts';
import { answerPage } from '../http/cursor.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { type Addition, addMember, changeRole, removeMember } from './members.ts';
import { signedIn } from './signed-in.ts';
import { toMemberBody } from './team-body.ts';
import { findTeammate, pageMembers } from './team-store.ts';

const ofPath = { teamParam: 'id' } as const;

export function memberRoutes(app: Server, deps: RouteDeps): void {
  const { db } = deps;

  app.get(
    '/teams/:id/members',
    {
      config: { permission: 'team.read', ...ofPath },
      schema: {
        operationId: 'listMembers',
        tags: ['teams'],
        summary: 'The members of a team, in the order in which they came',
        params: teamParamsSchema,
        querystring: arrayQuerySchema,
        response: { 200: memberListSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const page = await pageMembers(db, request.params.id, request.query);
      return answerPage(request, reply, page).map(toMemberBody);
    },
  );

  app.post(
    '/teams/:id/members',
    {
      config: { permission: 'team.members', ...ofPath, audit: 'domain' },
      schema: {
        operationId: 'addMember',
        tags: ['teams'],
        summary: 'Add somebody by their e-mail address',
        description:
          'People who share another team with you are in at once. Everybody else is sent an invitation, with an account ' +
          'or without one: the answer does not tell which addresses have accounts.',
        params: teamParamsSchema,
        body: addMemberRequestSchema,
        response: { 201: addedMemberSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { params, body } = request;
      const added = await addMember(deps, signedIn(request), params.id, body, actorOf(request));
      reply.code(201);
      return toAddedBody(added, body);
    },
  );

  app.patch(
    '/teams/:id/members/:user_id',
    {
      config: { permission: 'team.members', ...ofPath, audit: 'domain' },
      schema: {
        operationId: 'updateMember',
        tags: ['teams'],
        summary: 'Give a member another role',
        params: memberParamsSchema,
        body: updateMemberRequestSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { params, body } = request;
      const change = { userId: params.user_id, role: body.role };
      await changeRole(deps, signedIn(request).id, params.id, change, actorOf(request));
      reply.code(204);
      return null;
    },
  );

  app.delete(
    '/teams/:id/members/:user_id',
    {
      config: { permission: 'team.members', ...ofPath, audit: 'domain' },
      schema: {
        operationId: 'removeMember',
        tags: ['teams'],
        summary: 'Remove a member, whose own keys for the team end too',
        params: memberParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { id, user_id: userId } = request.params;
      await removeMember(deps, signedIn(request).id, id, userId, actorOf(request));
      reply.code(204);
      return null;
    },
  );

  app.get(
    '/users/search',
    {
      config: { permission: 'account' },
      schema: {
        operationId: 'searchUsers',
        tags: ['teams'],
        summary: 'The person of an address, among those who share a team with you',
        querystring: searchUsersQuerySchema,
        response: { 200: foundUsersSchema, ...errorResponses },
      },
    },
    async (request) => {
      const found = await findTeammate(db, signedIn(request).id, request.query.email);
      return found ? [{ user_id: found.id, email: found.email, name: found.name }] : [];
    },
  );
}

function toAddedBody(
  added: Addition,
  { email, role }: { readonly email: string; readonly role: 'admin' | 'member' },
): z.input<typeof addedMemberSchema> {
  if (added.status === 'member') {
    return { ...toMemberBody(added.member), status: 'member', invitation_id: null };
  }
  return {
    ...{ status: 'invited', user_id: null, name: email, email, role, joined_at: null },
    invitation_id: added.invitationId,
  };
}
