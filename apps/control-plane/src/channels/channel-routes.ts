import {
  channelConfigRequestSchema,
  channelListSchema,
  channelParamsSchema,
  channelSchema,
  createChannelRequestSchema,
  deliveryPageSchema,
  deliveryParamsSchema,
  deliverySchema,
  testChannelRequestSchema,
  testChannelResponseSchema,
  updateChannelRequestSchema,
} from '@wrenn/protocol/rest/channels';
import { pageQuerySchema } from '@wrenn/protocol/rest/paging';
import type { FastifyRequest } from 'fastify';
import { actorOf } from '../access/actor.ts';
import { clientGone } from '../http/client-gone.ts';
import { errorResponses, noContent } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import type { RateLimits } from '../identity/rate-limits.ts';
import { toChannelBody, toDeliveryBody } from './channel-body.ts';
import { listChannels } from './channel-store.ts';
import {
  type ChannelCaller,
  type ChannelsDeps,
  changeChannel,
  changeConfig,
  createChannel,
  deleteChannel,
  redeliver,
  requireChannel,
  testChannel,
  testConfig,
} from './channels.ts';
import { deliveryPage } from './delivery-page.ts';

const READ = { permission: 'channel.read' } as const;
const WRITE = { permission: 'channel.write' } as const;
const tags = ['channels'];

export function channelRoutes(app: Server, deps: ChannelsDeps, rateLimits: RateLimits): void {
  const { db, keyRing } = deps;
  const limitTests = async ({ ip, caller }: FastifyRequest) => {
    await rateLimits.countAddress('channel_test', ip);
    await rateLimits.countAccount('channel_test', caller.teamId);
  };

  app.post(
    '/channels',
    {
      config: WRITE,
      schema: {
        ...{ operationId: 'createChannel', tags, summary: 'Have a webhook, chat or mailbox told of events' },
        body: createChannelRequestSchema,
        response: { 201: channelSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { channel, secret } = await createChannel(deps, callerOf(request), request.body);
      reply.code(201);
      return toChannelBody(keyRing, channel, secret);
    },
  );

  app.get(
    '/channels',
    {
      config: READ,
      schema: {
        ...{ operationId: 'listChannels', tags, summary: 'List the channels of the team, by name' },
        response: { 200: channelListSchema, ...errorResponses },
      },
    },
    async ({ caller }) => (await listChannels(db, caller.teamId)).map((channel) => toChannelBody(keyRing, channel)),
  );

  app.post(
    '/channels/test',
    {
      config: WRITE,
      schema: {
        ...{ operationId: 'testChannelConfig', tags, summary: 'Send a test without making a channel' },
        body: testChannelRequestSchema,
        response: { 200: testChannelResponseSchema, ...errorResponses },
      },
      preHandler: limitTests,
    },
    async (request, reply) => {
      await testConfig(deps, callerOf(request), request.body, clientGone(request, reply));
      return { status: 'ok' as const };
    },
  );

  app.get(
    '/channels/:id',
    {
      config: READ,
      schema: {
        ...{ operationId: 'getChannel', tags, summary: 'Get a channel' },
        params: channelParamsSchema,
        response: { 200: channelSchema, ...errorResponses },
      },
    },
    async ({ caller, params }) => toChannelBody(keyRing, await requireChannel(db, caller.teamId, params.id)),
  );

  app.patch(
    '/channels/:id',
    {
      config: WRITE,
      schema: {
        ...{ operationId: 'updateChannel', tags, summary: 'Change name or events, switch a channel off or on' },
        params: channelParamsSchema,
        body: updateChannelRequestSchema,
        response: { 200: channelSchema, ...errorResponses },
      },
    },
    async (request) =>
      toChannelBody(keyRing, await changeChannel(deps, callerOf(request), request.params.id, request.body)),
  );

  app.put(
    '/channels/:id/config',
    {
      config: WRITE,
      schema: {
        ...{ operationId: 'setChannelConfig', tags, summary: 'Change the config; a webhook gets a new secret' },
        description: 'What is left out stays as it is, but for the secret of a webhook: the answer shows the new one.',
        params: channelParamsSchema,
        body: channelConfigRequestSchema,
        response: { 200: channelSchema, ...errorResponses },
      },
    },
    async (request) => {
      const given = fieldsOf(request.body);
      const { channel, secret } = await changeConfig(deps, callerOf(request), request.params.id, given);
      return toChannelBody(keyRing, channel, secret);
    },
  );

  app.delete(
    '/channels/:id',
    {
      config: WRITE,
      schema: {
        ...{ operationId: 'deleteChannel', tags, summary: 'Delete a channel and the log of its deliveries' },
        params: channelParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      await deleteChannel(deps, callerOf(request), request.params.id);
      reply.code(204);
      return null;
    },
  );

  app.post(
    '/channels/:id/test',
    {
      config: WRITE,
      schema: {
        ...{ operationId: 'testChannel', tags, summary: 'Send a test; it is kept among the deliveries' },
        params: channelParamsSchema,
        response: { 200: testChannelResponseSchema, ...errorResponses },
      },
      preHandler: limitTests,
    },
    async (request, reply) => {
      await testChannel(deps, callerOf(request), request.params.id, clientGone(request, reply));
      return { status: 'ok' as const };
    },
  );

  app.get(
    '/channels/:id/deliveries',
    {
      config: READ,
      schema: {
        ...{
          operationId: 'listDeliveries',
          tags,
          summary: 'What a channel was told, newest first, with every attempt',
        },
        params: channelParamsSchema,
        querystring: pageQuerySchema,
        response: { 200: deliveryPageSchema, ...errorResponses },
      },
    },
    async ({ caller, params, query }) => {
      const { id } = await requireChannel(db, caller.teamId, params.id);
      return deliveryPage(db, id, query);
    },
  );

  app.post(
    '/channels/:id/deliveries/:delivery/redeliver',
    {
      config: WRITE,
      schema: {
        ...{ operationId: 'redeliver', tags, summary: 'Tell it once more, under the same delivery id' },
        params: deliveryParamsSchema,
        response: { 202: deliverySchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { id, delivery } = request.params;
      const renewed = await redeliver(deps, callerOf(request), id, delivery);
      reply.code(202);
      return toDeliveryBody(renewed);
    },
  );
}

function callerOf(request: FastifyRequest): ChannelCaller {
  return { teamId: request.caller.teamId, actor: actorOf(request) };
}

/** Below `config`, or the body itself. */
function fieldsOf(body: Record<string, unknown>): Record<string, unknown> {
  const { config } = body;
  const isNested = typeof config === 'object' && config !== null && !Array.isArray(config);
  return isNested ? (config as Record<string, unknown>) : body;
}
