import { arrayQuerySchema } from '@wrenn/protocol/rest/paging';
import {
  acceptInvitationRequestSchema,
  createInvitationRequestSchema,
  invitationListSchema,
  invitationParamsSchema,
  invitationPreviewSchema,
  invitationSchema,
  teamParamsSchema,
  teamSchema,
} from '@wrenn/protocol/rest/teams';
import type { FastifyRequest } from 'fastify';
import { actorOf } from '../access/actor.ts';
import { answerPage } from '../http/cursor.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { limitCredentialPath } from '../identity/rate-limits.ts';
import { acceptInvitation } from './accept-invitation.ts';
import {
  invitationPath,
  inviteToTeam,
  listInvitations,
  previewInvitation,
  revokeInvitation,
  toInvitationBody,
} from './invitations.ts';
import { signedIn } from './signed-in.ts';
import { toTeamBody } from './team-body.ts';
import { requireTeamOf } from './teams.ts';

const HOUR_MS = 60 * 60 * 1000;
const ofPath = { teamParam: 'id' } as const;

export function invitationRoutes(app: Server, deps: RouteDeps): void {
  app.post(
    '/teams/:id/invitations',
    {
      config: { permission: 'team.members', ...ofPath, audit: 'domain' },
      schema: {
        operationId: 'createInvitation',
        tags: ['teams'],
        summary: 'Invite somebody by mail, or make a link for whoever gets it',
        description: 'Either works once. A new invitation to an address replaces the older ones.',
        params: teamParamsSchema,
        body: createInvitationRequestSchema,
        response: { 201: invitationSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { params, body } = request;
      const wanted = {
        email: body.email ?? undefined,
        role: body.role,
        lifetimeMs: body.expires_in_hours * HOUR_MS,
      };
      const { made, token } = await inviteToTeam(deps, signedIn(request), params.id, wanted, actorOf(request));
      reply.code(201);
      const link = `${publicUrl(request)}${invitationPath(token)}`;
      return { ...toInvitationBody(made), link, token };
    },
  );

  app.get(
    '/teams/:id/invitations',
    {
      config: { permission: 'team.members', ...ofPath },
      schema: {
        operationId: 'listInvitations',
        tags: ['teams'],
        summary: 'Invitations that can still be accepted, newest first',
        params: teamParamsSchema,
        querystring: arrayQuerySchema,
        response: { 200: invitationListSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const page = await listInvitations(deps, request.params.id, request.query);
      return answerPage(request, reply, page).map(toInvitationBody);
    },
  );

  app.delete(
    '/teams/:id/invitations/:invitation_id',
    {
      config: { permission: 'team.members', ...ofPath, audit: 'domain' },
      schema: {
        operationId: 'revokeInvitation',
        tags: ['teams'],
        summary: 'Take an invitation back',
        params: invitationParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { id, invitation_id: invitationId } = request.params;
      await revokeInvitation(deps, signedIn(request).id, id, invitationId, actorOf(request));
      reply.code(204);
      return null;
    },
  );

  app.post(
    '/invitations/accept',
    {
      config: { permission: 'account', audit: 'domain' },
      preHandler: limitCredentialPath(deps.rateLimits, 'invitation'),
      schema: {
        operationId: 'acceptInvitation',
        tags: ['teams'],
        summary: 'Join the team of an invitation',
        body: acceptInvitationRequestSchema,
        response: { 200: teamSchema, ...errorResponses },
      },
    },
    async (request) => {
      const user = signedIn(request);
      const acceptance = { token: request.body.token, user, actor: actorOf(request) };
      const { teamId } = await deps.db.transaction((tx) => acceptInvitation(tx, acceptance));
      return toTeamBody(await requireTeamOf(deps.db, user.id, teamId));
    },
  );

  app.post(
    '/invitations/preview',
    {
      config: { permission: 'public', audit: false },
      preHandler: limitCredentialPath(deps.rateLimits, 'invitation'),
      schema: {
        operationId: 'previewInvitation',
        tags: ['teams'],
        summary: 'What an invitation is for, to whoever has its token',
        body: acceptInvitationRequestSchema,
        response: { 200: invitationPreviewSchema, ...errorResponses },
      },
    },
    async ({ body }) => {
      const { invitation, teamName, invitedBy } = await previewInvitation(deps, body.token);
      const { role, email, expiresAt } = invitation;
      return { team_name: teamName, invited_by: invitedBy, role, email, expires_at: expiresAt.toISOString() };
    },
  );

  /** Where the client reached this server, unless the settings say better. */
  function publicUrl({ protocol, host }: FastifyRequest): string {
    return deps.settings.publicUrl ?? `${protocol}://${host}`;
  }
}
