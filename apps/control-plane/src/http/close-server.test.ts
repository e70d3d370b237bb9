import { once } from 'node:events';
import { Agent, get } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer, text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import fastifyWebsocket from '@fastify/websocket';
import { until } from '@wrenn/testing/until';
import Fastify from 'fastify';
import { expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { OutboundLinks } from '../hosts/outbound-links.ts';
import { closeServer, endConnectionIfClosing } from './close-server.ts';
import type { Server } from './server.ts';

/** Longer than a test may take, so that nothing here ends by it. */
const NEVER_MS = 600_000;
/** Many times what the kernel takes at once. */
const LARGE_BYTES = 32 * 1024 * 1024;

async function listening(addRoutes: (app: Server) => void): Promise<{ app: Server; port: number }> {
  const app = Fastify({ forceCloseConnections: 'idle' }) as unknown as Server;
  await app.register(fastifyWebsocket);
  app.server.on('request', (request, response) => endConnectionIfClosing(app.server, request, response));
  addRoutes(app);
  await app.listen({ host: '127.0.0.1', port: 0 });
  return { app, port: (app.server.address() as AddressInfo).port };
}

function close(app: Server, drainMs: number): Promise<void> {
  return closeServer(app, new OutboundLinks(() => undefined), drainMs);
}

it('does not wait for a connection whose client would use it again', async () => {
  const finish = Promise.withResolvers<void>();
  const { app, port } = await listening((routes) => {
    routes.get('/slow', async (_, reply) => {
      // With its head sent before the close, which says that the connection will be kept.
      reply.hijack();
      reply.raw.writeHead(200, { 'content-length': '4' });
      reply.raw.write('do');
      await finish.promise;
      reply.raw.end('ne');
    });
  });
  const agent = new Agent({ keepAlive: true });
  const [answer] = await once(get({ port, path: '/slow', agent }), 'response');
  expect(answer.headers.connection).toBe('keep-alive');
  const closed = close(app, NEVER_MS);
  await until('it takes no more connections', () => !app.server.listening);
  finish.resolve();
  expect(await text(answer)).toBe('done');
  await closed;
  agent.destroy();
});

it('does not wait for a stream whose client does not answer that it ends', async () => {
  const { app, port } = await listening((routes) => {
    routes.get('/stream', { websocket: true }, () => undefined);
  });
  const socket = new WebSocket(`ws://127.0.0.1:${port}/stream`);
  await once(socket, 'open');
  socket.pause();
  const [stream] = app.websocketServer.clients;
  const ended = once(stream as WebSocket, 'close');
  await close(app, 50);
  // What ended it was no answer.
  expect((await ended)[0]).toBe(1006);
  socket.on('error', () => undefined).terminate();
});

it('sends all of an answer that ends meanwhile to a client that takes its time', async () => {
  const finish = Promise.withResolvers<void>();
  const { app, port } = await listening((routes) => {
    routes.get('/large', async () => {
      await finish.promise;
      return Buffer.alloc(LARGE_BYTES);
    });
  });
  const asking = get({ port, path: '/large' });
  const arrived = once(asking, 'response');
  await once(app.server, 'request');
  const closed = close(app, NEVER_MS);
  await until('it takes no more connections', () => !app.server.listening);
  finish.resolve();
  const [answer] = await arrived;
  // As long as the rest waits in the server.
  await delay(200);
  expect((await buffer(answer)).length).toBe(LARGE_BYTES);
  await closed;
});
