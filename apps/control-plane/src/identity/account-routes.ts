import {
  changePasswordRequestSchema,
  deleteMeRequestSchema,
  meSchema,
  updateMeRequestSchema,
} from '@wrenn/protocol/rest/account';
import { authSchema, confirmResetRequestSchema, resetPasswordRequestSchema } from '@wrenn/protocol/rest/auth';
import { actorOf } from '../access/actor.ts';
import { requireSignedIn } from '../access/principal.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { deleteAccount } from './account-deletion.ts';
import { changePassword } from './password-change.ts';
import { confirmReset, requestReset } from './password-reset.ts';
import { describeMe, rename } from './profile.ts';
import { limitAccountPath, limitCredentialPath } from './rate-limits.ts';
import { clearSessionCookie, setSessionCookie } from './session-cookie.ts';

/** Below /v1/me: one's own account and its password. */
export function accountRoutes(app: Server, deps: RouteDeps): void {
  const { db, rateLimits, settings } = deps;

  app.get(
    '/me',
    {
      config: { permission: 'account' },
      schema: {
        operationId: 'getMe',
        tags: ['account'],
        summary: "One's own account",
        response: { 200: meSchema, ...errorResponses },
      },
    },
    async (request) => describeMe(db, requireSignedIn(request)),
  );

  app.patch(
    '/me',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'updateMe',
        tags: ['account'],
        summary: "Change one's name; the answer is a token that says it",
        body: updateMeRequestSchema,
        response: { 200: authSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const auth = await rename(deps, requireSignedIn(request), actorOf(request), request.body.name);
      setSessionCookie(request, reply, auth, settings.publicUrl);
      return auth;
    },
  );

  app.delete(
    '/me',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'deleteMe',
        tags: ['account'],
        summary: "Delete one's account",
        description:
          'Teams that nobody else is in are deleted with it, own keys and all sessions end at once. For 15 days an ' +
          'administrator can bring the account back; then what tells who it was is erased. A team that has other ' +
          'members must get another owner first.',
        body: deleteMeRequestSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await deleteAccount(deps, requireSignedIn(request), actorOf(request), request.body.confirmation);
      clearSessionCookie(reply);
      return reply.code(204).send(null);
    },
  );

  app.post(
    '/me/password',
    {
      config: { permission: 'account', audit: 'domain' },
      preHandler: async (request) => {
        await rateLimits.countAddress('own_password', request.ip);
        await rateLimits.countAccount('own_password', requireSignedIn(request).id);
      },
      schema: {
        operationId: 'changePassword',
        tags: ['account'],
        summary: 'Change the password, or set the first one; all other sessions end',
        body: changePasswordRequestSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { current_password, new_password, confirm_password } = request.body;
      await changePassword(deps, requireSignedIn(request), actorOf(request), {
        currentPassword: current_password,
        newPassword: new_password,
        confirmPassword: confirm_password,
      });
      return reply.code(204).send(null);
    },
  );

  app.post(
    '/me/password/reset',
    {
      // However often it is asked, the last mail's link is the one that works.
      config: { permission: 'public', audit: 'domain', idempotency: 'ignored' },
      preHandler: limitAccountPath(rateLimits, 'reset_request'),
      schema: {
        operationId: 'requestPasswordReset',
        tags: ['account'],
        summary: 'Have a link for a new password mailed, where the address has an account',
        description: 'The link holds for 15 minutes. It works for a locked account too, and ends the lock.',
        body: resetPasswordRequestSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await requestReset(deps, actorOf(request), request.body.email);
      return reply.code(204).send(null);
    },
  );

  app.post(
    '/me/password/reset/confirm',
    {
      config: { permission: 'public', audit: 'domain' },
      preHandler: limitCredentialPath(rateLimits, 'reset_confirm'),
      schema: {
        operationId: 'confirmPasswordReset',
        tags: ['account'],
        summary: 'Set a new password with the token of the mail; all sessions end',
        body: confirmResetRequestSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { token, new_password } = request.body;
      await confirmReset(deps, actorOf(request), token, new_password);
      return reply.code(204).send(null);
    },
  );
}
