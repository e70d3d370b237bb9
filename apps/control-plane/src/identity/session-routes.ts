import { sessionListSchema, sessionParamsSchema } from '@wrenn/protocol/rest/account';
import { arrayQuerySchema } from '@wrenn/protocol/rest/paging';
import { actorOf } from '../access/actor.ts';
import { requireSignedIn } from '../access/principal.ts';
import type { Session } from '../database/people-schema.ts';
import { answerPage } from '../http/cursor.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { clearSessionCookie } from './session-cookie.ts';
import { endOtherSessions, endSession } from './session-end.ts';
import { listSessions } from './sessions.ts';

/** Below /v1/me/sessions: where an account is logged in. */
export function sessionRoutes(app: Server, { db }: RouteDeps): void {
  app.get(
    '/me/sessions',
    {
      config: { permission: 'account' },
      schema: {
        operationId: 'listSessions',
        tags: ['account'],
        summary: 'Where one is logged in, the newest first',
        querystring: arrayQuerySchema,
        response: { 200: sessionListSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { id, sessionId } = requireSignedIn(request);
      const page = await listSessions(db, id, request.query);
      return answerPage(request, reply, page).map((session) => toBody(session, sessionId));
    },
  );

  app.delete(
    '/me/sessions',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'revokeOtherSessions',
        tags: ['account'],
        summary: 'End all sessions but the one of this request',
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { id, sessionId } = requireSignedIn(request);
      await endOtherSessions(db, actorOf(request), id, sessionId);
      return reply.code(204).send(null);
    },
  );

  app.delete(
    '/me/sessions/:id',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'revokeSession',
        tags: ['account'],
        summary: 'End a session: its next request is refused, and what is open on it is closed',
        params: sessionParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const me = requireSignedIn(request);
      await endSession(db, actorOf(request), me.id, request.params.id, 'session_revoke');
      if (request.params.id === me.sessionId) clearSessionCookie(reply);
      return reply.code(204).send(null);
    },
  );
}

function toBody(session: Session, currentId: string) {
  return {
    id: session.id,
    method: session.method,
    address: session.address,
    user_agent: session.userAgent,
    created_at: session.createdAt.toISOString(),
    last_seen_at: session.lastSeenAt.toISOString(),
    expires_at: session.expiresAt.toISOString(),
    current: session.id === currentId,
  };
}
