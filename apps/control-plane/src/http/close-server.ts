import type { Server as HttpServer, IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { OutboundLinks } from '../hosts/outbound-links.ts';
import type { Server } from './server.ts';

const LOOK_MS = 50;

/**
 * Has the connection of a request end with its answer where the server closes meanwhile: else it would be kept for a next
 * request. What the client has not taken yet is still sent.
 */
export function endConnectionIfClosing(server: HttpServer, request: IncomingMessage, response: ServerResponse): void {
  response.once('finish', () => {
    if (!server.listening) request.socket.destroySoon();
  });
}

/** Lets open requests and streams end for a while, then ends them. */
export async function closeServer(app: Server, links: OutboundLinks, drainMs: number): Promise<void> {
  const { server, websocketServer } = app;
  const cutOff = setTimeout(() => {
    // Those whose other side does not answer that they close.
    for (const socket of websocketServer.clients) socket.terminate();
    server.closeAllConnections();
  }, drainMs);
  try {
    for (const socket of websocketServer.clients) socket.close(1001, 'the server is stopping');
    await Promise.all([app.close(), endLinks(app, links, AbortSignal.timeout(drainMs))]);
  } finally {
    clearTimeout(cutOff);
  }
}

/** Requests that are being answered may need what hosts brought, so it ends when nothing else is open. */
async function endLinks({ server }: Server, links: OutboundLinks, late: AbortSignal): Promise<void> {
  const countOpen = promisify(server.getConnections.bind(server));
  while (!late.aborted && (await countOpen()) > links.size) {
    await delay(LOOK_MS, undefined, { signal: late }).catch(() => undefined);
  }
  await links[Symbol.asyncDispose]();
}
