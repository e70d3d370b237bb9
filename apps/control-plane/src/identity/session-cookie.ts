import type { AuthBody } from '@wrenn/protocol/rest/auth';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { SECURE_SESSION_COOKIE, SESSION_COOKIE, sessionCookieOf } from '../access/session-cookie-name.ts';

/** Lax: links from other sites, and providers that send a browser back, find it logged in; their scripts do not. */
const ATTRIBUTES = { path: '/', httpOnly: true, sameSite: 'lax' } as const;

/** Gives a browser its token, for as long as the session lasts. */
export function setSessionCookie(
  request: FastifyRequest,
  reply: FastifyReply,
  auth: AuthBody,
  publicUrl: string | undefined,
): void {
  const { name, secure } = sessionCookieOf(request, publicUrl);
  reply.setCookie(name, auth.token, { ...ATTRIBUTES, secure, expires: new Date(auth.expires_at) });
}

/** Whichever the browser has: over plain HTTP it takes no notice of the second. */
export function clearSessionCookie(reply: FastifyReply): void {
  reply.clearCookie(SESSION_COOKIE, ATTRIBUTES);
  reply.clearCookie(SECURE_SESSION_COOKIE, { ...ATTRIBUTES, secure: true });
}
