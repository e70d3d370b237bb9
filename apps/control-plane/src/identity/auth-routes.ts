import {
  activateRequestSchema,
  authSchema,
  loginRequestSchema,
  messageSchema,
  providersSchema,
  signUpRequestSchema,
  switchTeamRequestSchema,
} from '@wrenn/protocol/rest/auth';
import { actorOf } from '../access/actor.ts';
import { requireSignedIn } from '../access/principal.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { offeredProviders } from '../oauth/providers.ts';
import { activate } from './activation.ts';
import { logInWithPassword } from './password-login.ts';
import { switchTeam } from './profile.ts';
import { limitAccountPath, limitCredentialPath } from './rate-limits.ts';
import { clearSessionCookie, setSessionCookie } from './session-cookie.ts';
import { endSession } from './session-end.ts';
import { signUp } from './sign-up.ts';

/** Below /v1/auth: coming in and going out by password. */
export function authRoutes(app: Server, deps: RouteDeps): void {
  const { db, rateLimits, settings } = deps;

  app.get(
    '/auth/providers',
    {
      config: { permission: 'public' },
      schema: {
        operationId: 'listLoginMethods',
        tags: ['auth'],
        summary: 'What a login page can offer',
        response: { 200: providersSchema, ...errorResponses },
      },
    },
    async () => ({
      providers: offeredProviders(settings.oauth),
      password: true,
      passkeys: true,
      sign_up: settings.signUp,
    }),
  );

  app.post(
    '/auth/signup',
    {
      config: { permission: 'public', audit: 'domain' },
      preHandler: limitAccountPath(rateLimits, 'sign_up'),
      schema: {
        operationId: 'signUp',
        tags: ['auth'],
        summary: 'Make an account, which a mail then activates',
        description:
          'The answer is the same whether or not the address has an account; who owns the address is told by mail. ' +
          'A sign-up that nobody activated can be repeated after 30 minutes.',
        body: signUpRequestSchema,
        response: { 201: messageSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const message = await signUp(deps, actorOf(request), request.body);
      reply.code(201);
      return { message };
    },
  );

  app.post(
    '/auth/activate',
    {
      config: { permission: 'public', audit: 'domain' },
      preHandler: limitCredentialPath(rateLimits, 'activation'),
      schema: {
        operationId: 'activateAccount',
        tags: ['auth'],
        summary: 'Activate an account with the token of its mail, and log in',
        description: 'The account gets a team of its own, or enters the one that invited it.',
        body: activateRequestSchema,
        response: { 200: authSchema, ...errorResponses },
      },
    },
    async (request, reply) => activate(deps, { request, reply }, request.body.token),
  );

  app.post(
    '/auth/login',
    {
      // A login that is repeated is another login.
      config: { permission: 'public', audit: 'domain', idempotency: 'ignored' },
      preHandler: limitAccountPath(rateLimits, 'login'),
      schema: {
        operationId: 'login',
        tags: ['auth'],
        summary: 'Log in with a password',
        description:
          'The token is for the default team of the account, else the first that lives; without any, team_id is null. ' +
          'An unknown address, a wrong password and an account that is locked after many wrong ones give the same ' +
          'answer. Pages of this server also get the token as a cookie that scripts cannot read.',
        body: loginRequestSchema,
        response: { 200: authSchema, ...errorResponses },
      },
    },
    async (request, reply) => logInWithPassword(deps, { request, reply }, request.body),
  );

  app.post(
    '/auth/logout',
    {
      config: { permission: 'account', audit: 'domain', idempotency: 'ignored' },
      schema: {
        operationId: 'logout',
        tags: ['auth'],
        summary: 'End the session of this request',
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { id, sessionId } = requireSignedIn(request);
      await endSession(db, actorOf(request), id, sessionId, 'logout');
      clearSessionCookie(reply);
      return reply.code(204).send(null);
    },
  );

  app.post(
    '/auth/switch-team',
    {
      // It changes the token, and nothing here.
      config: { permission: 'account', audit: false, idempotency: 'ignored' },
      schema: {
        operationId: 'switchTeam',
        tags: ['auth'],
        summary: 'Get a token of this session for another team',
        description: 'Name, address and role in it are what they are now.',
        body: switchTeamRequestSchema,
        response: { 200: authSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const auth = await switchTeam(deps, requireSignedIn(request), request.body.team_id);
      setSessionCookie(request, reply, auth, settings.publicUrl);
      return auth;
    },
  );
}
