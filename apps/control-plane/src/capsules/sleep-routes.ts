import { capsuleParamsSchema, capsuleSchema, traceQuerySchema } from '@wrenn/protocol/rest/capsule';
import {
  forkRequestSchema,
  forkResponseSchema,
  resumeQuerySchema,
  verifyResponseSchema,
} from '@wrenn/protocol/rest/sleep';
import { clientGone } from '../http/client-gone.ts';
import { emptyBody, idempotencyHeaders, receivedAtMs } from '../http/request-parts.ts';
import { errorResponses, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { toCapsuleBody } from './capsule-body.ts';
import { forkCapsule } from './fork.ts';
import { hibernateCapsule, pauseCapsule, resumeCapsule, verifyCapsule } from './sleep.ts';

export function sleepRoutes(app: Server, { capsules }: RouteDeps): void {
  app.post(
    '/capsules/:id/pause',
    {
      config: { permission: 'capsule.write', audit: { resource: 'capsule', action: 'pause', by: 'domain' } },
      schema: {
        operationId: 'pauseCapsule',
        tags: ['capsules'],
        summary: 'Put a running capsule to sleep and wait until its memory and disk are safe',
        params: capsuleParamsSchema,
        headers: idempotencyHeaders,
        response: { 200: capsuleSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { caller, params, headers } = request;
      const gone = clientGone(request, reply);
      return toCapsuleBody(await pauseCapsule(capsules, caller, params.id, headers['idempotency-key'], gone));
    },
  );

  app.post(
    '/capsules/:id/resume',
    {
      config: { permission: 'capsule.write', audit: { resource: 'capsule', action: 'resume', by: 'domain' } },
      schema: {
        operationId: 'resumeCapsule',
        tags: ['capsules'],
        summary: 'Wake a sleeping capsule and wait until it runs',
        description: 'Also one that failed after it had slept: it goes back to what it was when it slept last.',
        params: capsuleParamsSchema,
        querystring: resumeQuerySchema,
        headers: idempotencyHeaders,
        response: { 200: capsuleSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { caller, params, query, headers } = request;
      const options = {
        memory: query.memory,
        idempotencyKey: headers['idempotency-key'],
        receivedAtMs: receivedAtMs(reply),
      };
      const capsule = await resumeCapsule(capsules, caller, params.id, options, clientGone(request, reply));
      return toCapsuleBody(capsule, { trace: query.trace === '1' });
    },
  );

  app.post(
    '/capsules/:id/fork',
    {
      config: { permission: 'capsule.write', audit: { resource: 'capsule', action: 'fork', by: 'domain' } },
      schema: {
        operationId: 'forkCapsule',
        tags: ['capsules'],
        summary: 'Make new capsules of a running one, which goes on',
        params: capsuleParamsSchema,
        querystring: traceQuerySchema,
        headers: idempotencyHeaders,
        body: forkRequestSchema,
        response: { 201: forkResponseSchema, ...errorResponses },
      },
      preValidation: emptyBody,
    },
    async (request, reply) => {
      const { caller, params, body, headers, query } = request;
      const key = headers['idempotency-key'];
      const gone = clientGone(request, reply);
      const children = await forkCapsule(capsules, caller, params.id, body, key, gone, receivedAtMs(reply));
      reply.code(201);
      return { capsules: children.map((child) => toCapsuleBody(child, { trace: query.trace === '1' })) };
    },
  );

  app.post(
    '/capsules/:id/hibernate',
    {
      config: { permission: 'capsule.write', audit: { resource: 'capsule', action: 'hibernate', by: 'domain' } },
      schema: {
        operationId: 'hibernateCapsule',
        tags: ['capsules'],
        summary: "Move a paused capsule into the object store and free its host's copy",
        params: capsuleParamsSchema,
        headers: idempotencyHeaders,
        response: { 200: capsuleSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { caller, params, headers } = request;
      const gone = clientGone(request, reply);
      return toCapsuleBody(await hibernateCapsule(capsules, caller, params.id, headers['idempotency-key'], gone));
    },
  );

  app.post(
    '/capsules/:id/verify',
    {
      config: { permission: 'capsule.write', idempotency: 'ignored', audit: { resource: 'capsule', action: 'verify' } },
      schema: {
        operationId: 'verifyCapsule',
        tags: ['capsules'],
        summary: 'Read every file of a sleeping capsule again and compare it with its sum',
        params: capsuleParamsSchema,
        response: { 200: verifyResponseSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { caller, params } = request;
      const found = await verifyCapsule(capsules, caller, params.id, clientGone(request, reply));
      return {
        capsule_id: params.id,
        generation: found.generation,
        ok: found.files.every(({ problem }) => problem === null),
        files: found.files.map(({ name, sizeBytes, problem }) => ({ name, size_bytes: sizeBytes, problem })),
      };
    },
  );
}
