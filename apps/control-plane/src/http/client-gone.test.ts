import { once } from 'node:events';
import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import Fastify from 'fastify';
import { expect, it } from 'vitest';
import { ClientGoneError, clientGone } from './client-gone.ts';

it('tells of a client that left before the handler began', async () => {
  await using app = Fastify();
  const { promise: told, resolve: tell } = Promise.withResolvers<AbortSignal>();
  const { promise: arrived, resolve: arrive } = Promise.withResolvers<void>();
  app.post('/', {
    preHandler: async (_, reply) => {
      arrive();
      await once(reply.raw, 'close');
    },
    handler: async (asked, reply) => {
      tell(clientGone(asked, reply));
      return {};
    },
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = app.server.address() as AddressInfo;
  const asking = request({ port, method: 'POST', headers: { 'content-type': 'application/json' } });
  asking.on('error', () => undefined).end('{}');
  await arrived;
  asking.destroy();
  expect((await told).reason).toBeInstanceOf(ClientGoneError);
});
