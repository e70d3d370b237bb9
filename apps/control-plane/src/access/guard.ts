import { WrennError } from '@wrenn/protocol/errors';
import { HOST_TOKEN_HEADER } from '@wrenn/protocol/host-link';
import type { FastifyRequest } from 'fastify';
import type { KeyUse } from '../api-keys/key-use.ts';
import type { Caller } from '../capsules/capsules.ts';
import { requireOwnCertificate } from '../hosts/connection-certificate.ts';
import { authenticateHost } from '../hosts/host-token.ts';
import type { Server } from '../http/server.ts';
import { type AuthDeps, authenticate } from '../identity/authenticate.ts';
import type { RateLimits } from '../identity/rate-limits.ts';
import type { SessionUse } from '../identity/session-use.ts';
import { PLATFORM_TEAM_ID } from '../teams/platform-team.ts';
import { actorOf } from './actor.ts';
import { authorize } from './authorize.ts';
import { asMemberOf } from './in-team.ts';
import type { ConnectionOwner, OpenConnections } from './open-connections.ts';
import { PERMISSIONS, type Permission } from './permissions.ts';
import type { KeyHolder, Principal, SignedInUser } from './principal.ts';
import { sessionCookieOf } from './session-cookie-name.ts';
import { logInFirst, type SocketHandler } from './socket-login.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Who may use the route. Every route has one. */
    permission?: Permission;
    /** It is for WebSockets, whose credential may come in the first message. */
    isSocket?: boolean;
    /** Name of the path's parameter that names the team, where that need not be the credential's. */
    teamParam?: string;
    /** What it serves lasts, and ends when the access does. */
    lasts?: boolean;
  }
  interface FastifyRequest {
    /** Whose credential it carries; undefined on public routes. */
    principal: Principal | undefined;
    /** Who asks, and for which team; set on routes whose permission is a team's. */
    caller: Caller;
  }
}

export interface GuardDeps extends AuthDeps {
  /** Where browsers reach this server, when that is not what their requests say. */
  readonly publicUrl: string | undefined;
  readonly rateLimits: RateLimits;
  readonly keyUse: Pick<KeyUse, 'note'>;
  readonly sessionUse: Pick<SessionUse, 'note'>;
  readonly connections: OpenConnections;
}

/** Lets no request reach a route that its credential may not use. Before any route is added. */
export function guardRoutes(app: Server, deps: GuardDeps): void {
  const admit = async (request: FastifyRequest, credential: string): Promise<void> => {
    const { permission, teamParam, isSocket, lasts } = request.routeOptions.config;
    if (permission === undefined) throw new Error(`${request.url} has no permission`);
    const heardBefore = deps.connections.heard;
    const holder = await authenticate(deps, credential).catch((error) => countRefused(request, error));
    request.principal = holder;
    const teamId = teamParam === undefined ? undefined : pathParam(request, teamParam);
    const principal = teamId === undefined ? holder : await asMemberOf(deps.db, holder, teamId);
    request.principal = principal;
    if (principal.type === 'api_key') deps.keyUse.note(principal.id);
    else deps.sessionUse.note(principal.sessionId);
    authorize(principal, permission);
    // What administrators do with capsules, they do with the platform's own.
    const team = permission === 'platform' ? PLATFORM_TEAM_ID : principal.team?.id;
    if (team !== undefined) request.caller = { teamId: team, actor: principal.id, askedBy: actorOf(request) };
    if (isSocket || lasts) {
      const recheck = async () => authorize(await authenticate(deps, credential), permission);
      deps.connections.add(request, ownerOf(principal, permission), recheck, heardBefore);
    }
  };
  const countRefused = async (request: FastifyRequest, error: unknown): Promise<never> => {
    if (error instanceof WrennError && error.http === 401) await deps.rateLimits.countAddress('api_key', request.ip);
    throw error;
  };
  const admitHost = async (request: FastifyRequest): Promise<void> => {
    // Nothing else is read on the routes of agents, and it is read on no other.
    const credential = request.headers[HOST_TOKEN_HEADER];
    if (typeof credential !== 'string') throw new WrennError('unauthorized');
    const host = await authenticateHost(deps, credential).catch((error) => countRefused(request, error));
    request.principal = host;
    if (pathParam(request, 'id') !== host.id) throw new WrennError('forbidden');
    requireOwnCertificate(request, host.id);
  };
  app.addHook('onRoute', (route) => {
    // The pages of the API reference are another package's routes.
    if (/^\/docs(\/|$)/.test(route.url)) route.config = { ...route.config, permission: 'public' };
    if (!route.config?.permission) throw new Error(`the route ${route.method} ${route.url} names no permission`);
    if (route.config.permission === 'capsule.access') route.config = { ...route.config, lasts: true };
    if (!route.websocket) return;
    route.config = { ...route.config, isSocket: true };
    // Set apart, so that a request that is no WebSocket gets an error of the catalogue.
    route.wsHandler = logInFirst(route.handler as unknown as SocketHandler, admit);
    route.handler = () => {
      throw new WrennError('upgrade_required');
    };
    delete route.websocket;
  });
  app.addHook('onResponse', async (request) => deps.connections.forget(request));
  app.addHook('onRequest', async (request) => {
    const { permission, isSocket } = request.routeOptions.config;
    if (request.is404 || permission === undefined || permission === 'public') return;
    if (PERMISSIONS[permission].for === 'host') return admitHost(request);
    const credential = credentialOf(request, deps.publicUrl);
    if (credential !== undefined) return admit(request, credential);
    if (isSocket && isUpgrade(request)) return;
    throw new WrennError('unauthorized');
  });
}

function pathParam({ params }: FastifyRequest, name: string): string {
  return (params as Record<string, string>)[name] ?? '';
}

function ownerOf(principal: SignedInUser | KeyHolder, permission: Permission): ConnectionOwner {
  const teamId = permission === 'platform' ? PLATFORM_TEAM_ID : principal.team?.id;
  return principal.type === 'user'
    ? { userId: principal.id, sessionId: principal.sessionId, keyId: undefined, teamId }
    : { userId: principal.userId, sessionId: undefined, keyId: principal.id, teamId };
}

/** Nothing but a WebSocket comes of it: a request that only says so does not reach the handler of the socket. */
function isUpgrade({ headers }: FastifyRequest): boolean {
  return headers.upgrade?.toLowerCase() === 'websocket';
}

/** The key or token that a request carries: X-API-Key counts before Authorization, and both before the cookie. */
function credentialOf(request: FastifyRequest, publicUrl: string | undefined): string | undefined {
  const key = request.headers['x-api-key'];
  if (typeof key === 'string') return key;
  const bearer = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
  if (bearer !== undefined) return bearer;
  const cookie = request.cookies[sessionCookieOf(request, publicUrl).name];
  if (cookie !== undefined) requireOwnOrigin(request, publicUrl);
  return cookie;
}

/** Browsers send the cookie for other sites' pages too: what such a page can bring about must come from a page of ours. */
function requireOwnOrigin(request: FastifyRequest, publicUrl: string | undefined): void {
  const changesNothing = request.method === 'GET' || request.method === 'HEAD';
  if (changesNothing && request.headers.upgrade === undefined) return;
  const { origin } = request.headers;
  const own = [`${request.protocol}://${request.host}`, ...(publicUrl ? [new URL(publicUrl).origin] : [])];
  if (origin === undefined || !own.includes(origin))
    throw new WrennError('origin_refused', { origin: origin ?? 'nowhere' });
}
