import { WrennError } from '@wrenn/protocol/errors';
import {
  type CapsuleStatus,
  capsuleListSchema,
  capsuleLogsQuerySchema,
  capsuleParamsSchema,
  capsuleSchema,
  createCapsuleRequestSchema,
  listCapsulesQuerySchema,
  traceQuerySchema,
} from '@wrenn/protocol/rest/capsule';
import { z } from 'zod';
import { clientGone } from '../http/client-gone.ts';
import { answerPage } from '../http/cursor.ts';
import { emptyBody, idempotencyHeaders, receivedAtMs } from '../http/request-parts.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { describeAwake } from './awake.ts';
import { toCapsuleBody } from './capsule-body.ts';
import { listCapsules } from './capsule-list.ts';
import { createCapsule, destroyCapsule, requireCapsule, requireRunning } from './capsules.ts';

/** How long a delete waits for a silent host before it answers that it goes on without the client. */
const DELETE_WAIT_MS = 60_000;

/** States in which a host has something to read. */
const WITH_CONSOLE: readonly CapsuleStatus[] = ['starting', 'running', 'pausing', 'forking', 'resuming'];

export function capsuleRoutes(app: Server, deps: RouteDeps): void {
  const { db, capsules, activity, hostOf } = deps;

  app.post(
    '/capsules',
    {
      config: { permission: 'capsule.write', audit: { resource: 'capsule', action: 'create', by: 'domain' } },
      schema: {
        operationId: 'createCapsule',
        tags: ['capsules'],
        summary: 'Create a capsule and wait until it runs',
        headers: idempotencyHeaders,
        querystring: traceQuerySchema,
        body: createCapsuleRequestSchema,
        response: { 201: capsuleSchema, ...errorResponses },
      },
      preValidation: emptyBody,
    },
    async (request, reply) => {
      const key = request.headers['idempotency-key'];
      const gone = clientGone(request, reply);
      const capsule = await createCapsule(capsules, request.caller, request.body, key, gone, receivedAtMs(reply));
      reply.code(201);
      return toCapsuleBody(capsule, { trace: request.query.trace === '1' });
    },
  );

  app.get(
    '/capsules',
    {
      config: { permission: 'capsule.read' },
      schema: {
        operationId: 'listCapsules',
        tags: ['capsules'],
        summary: 'List capsules, newest first',
        description:
          'At most `limit` of them; where there are more, `X-Next-Cursor` holds the `cursor` of the next page, and `Link` its ' +
          'address.',
        querystring: listCapsulesQuerySchema,
        response: { 200: capsuleListSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const page = await listCapsules(db, request.caller.teamId, request.query);
      return answerPage(request, reply, page).map((capsule) => toCapsuleBody(capsule));
    },
  );

  app.get(
    '/capsules/:id',
    {
      config: { permission: 'capsule.read' },
      schema: {
        operationId: 'getCapsule',
        tags: ['capsules'],
        summary: 'Get a capsule in any state',
        params: capsuleParamsSchema,
        querystring: traceQuerySchema,
        response: { 200: capsuleSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const capsule = await requireCapsule(db, request.caller.teamId, request.params.id);
      const awake = await describeAwake(deps, capsule, clientGone(request, reply));
      return { ...toCapsuleBody(capsule, { trace: request.query.trace === '1' }), ...(awake ? { awake } : {}) };
    },
  );

  app.delete(
    '/capsules/:id',
    {
      config: { permission: 'capsule.write', audit: { resource: 'capsule', action: 'destroy', by: 'domain' } },
      schema: {
        operationId: 'destroyCapsule',
        tags: ['capsules'],
        summary: 'Destroy a capsule',
        description:
          'Answers 204 when nothing is left of it, and 202 when its host is silent: then it is destroyed as soon as the host is back.',
        params: capsuleParamsSchema,
        response: { 202: capsuleSchema, 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const wait = AbortSignal.any([clientGone(request, reply), AbortSignal.timeout(DELETE_WAIT_MS)]);
      const capsule = await destroyCapsule(capsules, request.caller, request.params.id, wait);
      if (capsule.status !== 'stopped') {
        reply.code(202);
        return toCapsuleBody(capsule);
      }
      reply.code(204);
      return null;
    },
  );

  app.post(
    '/capsules/:id/ping',
    {
      config: { permission: 'capsule.write', audit: false },
      schema: {
        operationId: 'pingCapsule',
        tags: ['capsules'],
        summary: 'Count the capsule as used now',
        params: capsuleParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async ({ caller, params }, reply) => {
      const { id } = await requireRunning(db, caller.teamId, params.id);
      activity.touch(id);
      reply.code(204);
      return null;
    },
  );

  app.get(
    '/capsules/:id/logs',
    {
      config: { permission: 'capsule.access', audit: { resource: 'capsule', action: 'console_read' } },
      schema: {
        operationId: 'getCapsuleLogs',
        tags: ['capsules'],
        summary: 'The end of what the guest wrote to its console',
        params: capsuleParamsSchema,
        querystring: capsuleLogsQuerySchema,
        produces: ['text/plain'],
        response: { 200: z.string().meta({ description: 'The console, as it is.' }), ...errorResponses },
      },
    },
    async (request, reply) => {
      const { caller, params, query } = request;
      const capsule = await requireCapsule(db, caller.teamId, params.id);
      reply.type('text/plain; charset=utf-8').serializer((text: string) => text);
      if (capsule.consoleTail) return capsule.consoleTail.subarray(-query.max_bytes).toString();
      if (!WITH_CONSOLE.includes(capsule.status)) {
        throw new WrennError('not_found', { what: `The console of the ${capsule.status} capsule ${capsule.id}` });
      }
      const console = await hostOf(capsule.hostId).readConsole(capsule.id, query.max_bytes, clientGone(request, reply));
      return Buffer.from(console).toString();
    },
  );
}
