import { WrennError } from '@wrenn/protocol/errors';
import {
  heartbeatRequestSchema,
  heartbeatResponseSchema,
  hostCredentialsSchema,
  hostParamsSchema,
  refreshHostRequestSchema,
  registerHostRequestSchema,
  registerHostResponseSchema,
} from '@wrenn/protocol/rest/hosts';
import { SYSTEM } from '../access/actor.ts';
import { errorResponses, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { limitCredentialPath } from '../identity/rate-limits.ts';
import { acceptHeartbeat, type HeartbeatDeps } from './accept-heartbeat.ts';
import type { FleetTrust } from './fleet-trust.ts';
import { toHostBody } from './host-body.ts';
import { getHost } from './host-rows.ts';
import { refreshCredentials } from './refresh.ts';
import { registerHost } from './register-host.ts';

/** A host with 100,000 capsules. */
const HEARTBEAT_BYTES = 64 * 1024 * 1024;

export interface AgentRouteDeps extends Pick<RouteDeps, 'db' | 'settings' | 'secrets' | 'rateLimits'> {
  readonly fleetTrust: Pick<FleetTrust, 'authority'>;
  readonly recordHeartbeat: HeartbeatDeps['record'];
}

/** What the agents of hosts ask. */
export function agentRoutes(app: Server, deps: AgentRouteDeps): void {
  const { db, rateLimits } = deps;
  const issuer = { db, jwtSecret: deps.secrets.jwtSecret, authority: deps.fleetTrust.authority };
  const tags = ['hosts'];

  app.post(
    '/hosts/register',
    {
      config: { permission: 'public', audit: false },
      preHandler: limitCredentialPath(rateLimits, 'host_registration'),
      schema: {
        operationId: 'registerHost',
        tags,
        summary: 'Register a host: for its agent, with the token that was made for it',
        description: 'The token works once. The private key stays with the agent.',
        body: registerHostRequestSchema,
        response: { 201: registerHostResponseSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const made = await registerHost(issuer, request.body, request.ip);
      const viewer = { isAdmin: true, id: undefined, userId: undefined, team: undefined, actor: SYSTEM };
      reply.code(201).header('cache-control', 'no-store');
      return { ...made, host: toHostBody(await getHost(db, viewer, made.host_id), deps.settings.placement) };
    },
  );

  app.post(
    '/hosts/auth/refresh',
    {
      config: { permission: 'public', audit: false },
      schema: {
        operationId: 'refreshHostCredentials',
        tags,
        summary: 'Get the next credentials of a host',
        description: 'Earlier ones end when the new ones are first used: an answer that is lost does no harm.',
        body: refreshHostRequestSchema,
        response: { 200: hostCredentialsSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { refresh_token: refreshToken, csr, address } = request.body;
      reply.header('cache-control', 'no-store');
      try {
        return await refreshCredentials(issuer, { refreshToken, csr, address, from: request.ip });
      } catch (error) {
        // Many hosts may share an address: only what is refused counts.
        if (error instanceof WrennError && error.http === 401) {
          await rateLimits.countAddress('host_registration', request.ip);
        }
        throw error;
      }
    },
  );

  app.post(
    '/hosts/:id/heartbeat',
    {
      config: { permission: 'host', audit: false },
      bodyLimit: HEARTBEAT_BYTES,
      schema: {
        operationId: 'sendHeartbeat',
        tags,
        summary: 'Tell that a host lives, and what is on it',
        params: hostParamsSchema,
        body: heartbeatRequestSchema,
        response: { 200: heartbeatResponseSchema, ...errorResponses },
      },
    },
    (request) =>
      acceptHeartbeat({ db, record: deps.recordHeartbeat }, { id: request.params.id }, request.body, request.ip),
  );
}
