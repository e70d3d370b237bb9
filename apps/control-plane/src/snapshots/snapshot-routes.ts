import { capsuleParamsSchema } from '@wrenn/protocol/rest/capsule';
import {
  createSnapshotOfRequestSchema,
  createSnapshotRequestSchema,
  listSnapshotsQuerySchema,
  snapshotListSchema,
  snapshotParamsSchema,
  snapshotSchema,
} from '@wrenn/protocol/rest/sleep';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { capsuleDetails } from '../audit/access-details.ts';
import type { CapsulesDeps } from '../capsules/capsules.ts';
import { clientGone } from '../http/client-gone.ts';
import { answerPage } from '../http/cursor.ts';
import { emptyBody, idempotencyHeaders } from '../http/request-parts.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { toSnapshotBody, toTemplateBody } from './snapshot-body.ts';
import { listReadySnapshots } from './snapshot-store.ts';
import { createSnapshot, deleteSnapshot, platformTemplates, requireSnapshot } from './snapshots.ts';

export function snapshotRoutes(app: Server, { db, capsules }: RouteDeps): void {
  app.post(
    '/capsules/:id/snapshots',
    {
      config: {
        permission: 'snapshot.write',
        audit: { resource: 'snapshot', action: 'create', by: 'domain', param: false, details: capsuleDetails },
      },
      schema: {
        operationId: 'createSnapshotOfCapsule',
        tags: ['snapshots'],
        summary: 'Keep the state of a running or paused capsule as a template',
        params: capsuleParamsSchema,
        headers: idempotencyHeaders,
        body: createSnapshotRequestSchema,
        response: { 201: snapshotSchema, ...errorResponses },
      },
      preValidation: emptyBody,
    },
    async (request, reply) => {
      const { params, body, headers } = request;
      return takeSnapshot(capsules, request, reply, params.id, body.name, headers['idempotency-key']);
    },
  );

  app.post(
    '/snapshots',
    {
      config: { permission: 'snapshot.write', audit: { resource: 'snapshot', action: 'create', by: 'domain' } },
      schema: {
        operationId: 'createSnapshot',
        tags: ['snapshots'],
        summary: 'The same with the capsule in the body',
        headers: idempotencyHeaders,
        body: createSnapshotOfRequestSchema,
        response: { 201: snapshotSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { body, headers } = request;
      const id = body.capsule_id ?? body.sandbox_id ?? '';
      return takeSnapshot(capsules, request, reply, id, body.name, headers['idempotency-key']);
    },
  );

  app.get(
    '/snapshots',
    {
      config: { permission: 'snapshot.read' },
      schema: {
        operationId: 'listSnapshots',
        tags: ['snapshots'],
        summary: 'What capsules can be made of: templates of the platform, then snapshots of the team, newest first',
        querystring: listSnapshotsQuerySchema,
        response: { 200: snapshotListSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { caller, query } = request;
      // Few: they come before the first page, and do not count.
      const hasBase = query.type !== 'snapshot' && query.cursor === undefined;
      const base = hasBase ? platformTemplates(capsules.hosts()) : [];
      if (query.type === 'base') return base.map(toTemplateBody);
      const page = await listReadySnapshots(db, caller.teamId, query);
      return [...base.map(toTemplateBody), ...answerPage(request, reply, page).map(toSnapshotBody)];
    },
  );

  app.get(
    '/snapshots/:name',
    {
      config: { permission: 'snapshot.read' },
      schema: {
        operationId: 'getSnapshot',
        tags: ['snapshots'],
        summary: 'Get a snapshot by its name or id',
        params: snapshotParamsSchema,
        response: { 200: snapshotSchema, ...errorResponses },
      },
    },
    async ({ caller, params }) => toSnapshotBody(await requireSnapshot(capsules, caller, params.name)),
  );

  app.delete(
    '/snapshots/:name',
    {
      config: {
        permission: 'snapshot.write',
        audit: { resource: 'snapshot', action: 'delete', by: 'domain', param: 'name' },
      },
      schema: {
        operationId: 'deleteSnapshot',
        tags: ['snapshots'],
        summary: 'Delete a snapshot; capsules that were made of it are not touched',
        params: snapshotParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async ({ caller, params }, reply) => {
      await deleteSnapshot(capsules, caller, params.name);
      reply.code(204);
      return null;
    },
  );
}

/** Answers a request for a snapshot, on whichever path it came. */
export async function takeSnapshot(
  deps: CapsulesDeps,
  request: FastifyRequest,
  reply: FastifyReply,
  capsuleId: string,
  name: string | undefined,
  idempotencyKey: string | undefined,
): Promise<z.input<typeof snapshotSchema>> {
  const gone = clientGone(request, reply);
  const made = await createSnapshot(deps, request.caller, capsuleId, name, idempotencyKey, gone);
  reply.code(201);
  return toSnapshotBody(made);
}
