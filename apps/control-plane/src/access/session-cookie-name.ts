import type { FastifyRequest } from 'fastify';

/** Holds the token of a login for pages of this server. Scripts cannot read it. */
export const SESSION_COOKIE = 'wrenn_session';
/** The same over HTTPS: browsers let no other host of the domain set a cookie of such a name, a capsule's neither. */
export const SECURE_SESSION_COOKIE = `__Host-${SESSION_COOKIE}`;

/**
 * The one cookie that counts in a request. Over HTTPS that is never the one without the prefix, which a page of another
 * host of the domain can set: its visitor would work in somebody else's account.
 */
export function sessionCookieOf(
  request: Pick<FastifyRequest, 'protocol'>,
  publicUrl: string | undefined,
): { readonly name: string; readonly secure: boolean } {
  const secure = publicUrl?.startsWith('https:') || request.protocol === 'https';
  return { name: secure ? SECURE_SESSION_COOKIE : SESSION_COOKIE, secure };
}
