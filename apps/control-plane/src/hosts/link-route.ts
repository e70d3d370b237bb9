import type { IncomingMessage } from 'node:http';
import { WrennError } from '@wrenn/protocol/errors';
import { CONTROL_PLANE_HEADER, LINK_BOOT_ID_HEADER, LINKED_HEADER } from '@wrenn/protocol/host-link';
import { hostParamsSchema } from '@wrenn/protocol/rest/hosts';
import { and, eq, isNull } from 'drizzle-orm';
import type { FastifyRequest } from 'fastify';
import { createWebSocketStream } from 'ws';
import type { Db } from '../database/database.ts';
import { hosts } from '../database/host-schema.ts';
import type { Server } from '../http/server.ts';
import type { OutboundLinks } from './outbound-links.ts';

/** So that the connection of a host that is switched off does not stay. */
const KEEPALIVE_MS = 15_000;

export interface LinkRouteDeps {
  readonly db: Db;
  readonly links: OutboundLinks;
  /** Id of this control plane. */
  readonly controlPlaneId: string;
}

/** Where hosts that no address leads to bring the streams on which they are asked. */
export function linkRoute(app: Server, { db, links, controlPlaneId }: LinkRouteDeps): void {
  const coming = new WeakSet<IncomingMessage>();
  app.websocketServer.on('headers', (lines: string[], request: IncomingMessage) => {
    if (coming.has(request)) lines.push(`${CONTROL_PLANE_HEADER}: ${controlPlaneId}`);
  });
  app.get(
    '/hosts/:id/link',
    {
      websocket: true,
      config: { permission: 'host', audit: false },
      schema: {
        operationId: 'linkHost',
        tags: ['hosts'],
        summary: 'Bring a byte stream to a host that cannot be reached (WebSocket)',
        description:
          'Binary messages, in which the control plane speaks TLS and HTTP/2 to the agent as it does over TCP. The header ' +
          'X-Wrenn-Control-Plane of the answer says whose link it is; the agent names those that it has in X-Wrenn-Linked.',
        params: hostParamsSchema,
      },
      preHandler: async (request, reply) => {
        const { id } = request.params;
        reply.header(CONTROL_PLANE_HEADER, controlPlaneId);
        await requireLinkable(db, id, headerOf(request, LINK_BOOT_ID_HEADER));
        const linked = headerOf(request, LINKED_HEADER)?.split(',') ?? [];
        if (linked.includes(controlPlaneId) && links.has(id))
          throw new WrennError('conflict', { what: `A connection of ${id} to ${controlPlaneId}` });
        coming.add(request.raw);
      },
    },
    (socket, request) => {
      const { id } = request.params as { id: string };
      request.raw.socket.setKeepAlive(true, KEEPALIVE_MS);
      // A server that stops ends it after the requests that go through it, so not with the other WebSockets.
      app.websocketServer.clients.delete(socket);
      const stream = createWebSocketStream(socket);
      socket.once('close', () => stream.destroy());
      request.log.info({ host: id }, 'a host brought a connection');
      links.offer(id, stream);
    },
  );
}

/** @throws WrennError `host_deleted`; `host_state` for one with an address; `host_credential_shared` */
async function requireLinkable(db: Db, id: string, bootId: string | undefined): Promise<void> {
  const [host] = await db
    .select({ connection: hosts.connection, pastBootIds: hosts.pastBootIds })
    .from(hosts)
    .where(and(eq(hosts.id, id), isNull(hosts.deletedAt)));
  if (!host) throw new WrennError('host_deleted', { id });
  if (host.connection !== 'outbound')
    throw new WrennError('host_state', { id, status: 'reached by its address', needed: 'registered without one' });
  // Else an agent and its copy would take the link from each other for ever.
  if (bootId !== undefined && host.pastBootIds.includes(bootId)) throw new WrennError('host_credential_shared', { id });
}

function headerOf({ headers }: FastifyRequest, name: string): string | undefined {
  const value = headers[name];
  return typeof value === 'string' && value !== '' ? value : undefined;
}
