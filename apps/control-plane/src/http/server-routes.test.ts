import Fastify from 'fastify';
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Database } from '../database/database.ts';
import type { Host } from '../hosts/host.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import type { Server } from './server.ts';
import { serverRoutes } from './server-routes.ts';

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database[Symbol.asyncDispose]());

async function listen(hosts: readonly Partial<Host>[], needsHost: boolean) {
  const app = Fastify({ return503OnClosing: false }).withTypeProvider<ZodTypeProvider>();
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  serverRoutes(app as Server, { database, hosts: () => hosts as Host[], needsHost, checkRedis: () => undefined });
  const closed = Promise.withResolvers<void>();
  app.addHook('preClose', () => closed.promise);
  const base = await app.listen({ host: '127.0.0.1', port: 0 });
  return {
    base,
    ready: async () => {
      const answer = await fetch(`${base}/ready`);
      return [answer.status, await answer.json()] as const;
    },
    beginClose: () => app.close(),
    [Symbol.asyncDispose]: async () => {
      closed.resolve();
      await app.close();
    },
  };
}

it('needs a host on one machine, and none where hosts join by themselves', async () => {
  const silent = { online: false, address: 'https://127.0.0.1:50051' };
  await using alone = await listen([silent], true);
  const host = { ok: false, detail: `no host answers at ${silent.address}` };
  expect(await alone.ready()).toMatchObject([503, { ready: false, checks: { host } }]);
  await using fleet = await listen([], false);
  const none = { ok: false, detail: 'no host has joined' };
  expect(await fleet.ready()).toMatchObject([200, { ready: true, checks: { host: none } }]);
});

it('is not ready, but well, while it shuts down', async () => {
  await using server = await listen([{ online: true }], true);
  expect((await server.ready())[0]).toBe(200);
  const closing = server.beginClose();
  const stopped = { ok: false, detail: 'shutting down' };
  expect(await server.ready()).toMatchObject([
    503,
    { ready: false, checks: { server: stopped, database: { ok: true } } },
  ]);
  expect((await fetch(`${server.base}/health`)).status).toBe(200);
  await server[Symbol.asyncDispose]();
  await closing;
});
