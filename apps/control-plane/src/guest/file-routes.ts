import { WrennError } from '@wrenn/protocol/errors';
import { capsuleParamsSchema } from '@wrenn/protocol/rest/capsule';
import {
  FILE_WRITE_LIMIT_BYTES,
  listDirRequestSchema,
  listDirResponseSchema,
  mkdirRequestSchema,
  mkdirResponseSchema,
  readFileRequestSchema,
  removeRequestSchema,
  writeFileQuerySchema,
} from '@wrenn/protocol/rest/files';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import { pathDetails } from '../audit/access-details.ts';
import { noteDetails } from '../audit/record-requests.ts';
import { clientGone } from '../http/client-gone.ts';
import { errorResponses, noContent, type RouteDeps, sendStream, useGuest, withGuest } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { explainBreak } from './awake.ts';
import { listDir, makeDir, readFile, removePath, writeFile } from './files.ts';
import type { Guest } from './guest.ts';
import { discardBody, receiveFile } from './upload.ts';

const fileBytes = z.string().meta({ format: 'binary', description: 'The bytes of the file.' });

export function fileRoutes(app: Server, deps: RouteDeps): void {
  // Uploads are read where they are handled, not before.
  const type = 'application/octet-stream';
  // They are added twice: for every team, and for the platform's own capsules.
  if (!app.hasContentTypeParser(type)) app.addContentTypeParser(type, (_request, payload, done) => done(null, payload));

  for (const [path, limit] of [
    ['/capsules/:id/files/write', FILE_WRITE_LIMIT_BYTES],
    ['/capsules/:id/files/stream/write', undefined],
  ] as const) {
    app.post(
      path,
      {
        config: { permission: 'capsule.access', audit: { resource: 'capsule', action: 'file_write' } },
        schema: {
          operationId: limit ? 'writeFile' : 'writeFileStream',
          tags: ['files'],
          summary: limit ? 'Write a file of at most 100 MB' : 'Write a file of any size',
          description:
            'A multipart body with the field `path` and then the file `file`; or the bare bytes as application/octet-stream ' +
            'with the query parameter `path`. The file is put in place whole, or not at all.',
          consumes: ['multipart/form-data', 'application/octet-stream'],
          params: capsuleParamsSchema,
          querystring: writeFileQuerySchema,
          response: { 204: noContent, ...errorResponses },
        },
      },
      async (request, reply) => {
        const gone = clientGone(request, reply);
        const { path: queryPath, user } = request.query;
        try {
          await withGuest(deps, request.caller, request.params.id, 'an upload', gone, (guest) =>
            receiveFile(request, { path: queryPath, limit }, (place, body) => {
              noteDetails(request, { path: place });
              return writeFile(guest, { path: place, user }, body, gone);
            }),
          );
        } catch (error) {
          await discardBody(request);
          throw error;
        }
        reply.code(204);
        return null;
      },
    );
  }

  for (const path of ['/capsules/:id/files/read', '/capsules/:id/files/stream/read'] as const) {
    app.post(
      path,
      {
        config: {
          permission: 'capsule.access',
          idempotency: 'ignored',
          audit: { resource: 'capsule', action: 'file_read', details: pathDetails },
        },
        schema: {
          operationId: path.includes('stream') ? 'readFileStream' : 'readFile',
          tags: ['files'],
          summary: 'Read a file',
          produces: ['application/octet-stream'],
          params: capsuleParamsSchema,
          body: readFileRequestSchema,
          response: { 200: fileBytes, ...errorResponses },
        },
      },
      async (request, reply) => {
        const { caller, params, body } = request;
        const gone = clientGone(request, reply);
        const use = await useGuest(deps, caller, params.id, { detail: `download of ${body.path}` }, gone);
        if (gone.aborted) use[Symbol.dispose]();
        else reply.raw.once('close', () => use[Symbol.dispose]());
        try {
          return await sendFile(use.guest, { path: body.path, user: body.user }, reply, gone);
        } catch (error) {
          throw await explainBreak(deps.db, use.capsule, error);
        }
      },
    );
  }

  app.post(
    '/capsules/:id/files/list',
    {
      config: {
        permission: 'capsule.access',
        idempotency: 'ignored',
        audit: { resource: 'capsule', action: 'file_list', details: pathDetails },
      },
      schema: {
        operationId: 'listDir',
        tags: ['files'],
        summary: 'List a directory',
        params: capsuleParamsSchema,
        body: listDirRequestSchema,
        response: { 200: listDirResponseSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { path, user, depth } = request.body;
      const gone = clientGone(request, reply);
      const entries = await withGuest(deps, request.caller, request.params.id, 'a listing', gone, (guest) =>
        listDir(guest, { path, user }, depth ?? 1, gone),
      );
      return { entries };
    },
  );

  app.post(
    '/capsules/:id/files/mkdir',
    {
      config: {
        permission: 'capsule.access',
        audit: { resource: 'capsule', action: 'file_mkdir', details: pathDetails },
      },
      schema: {
        operationId: 'makeDir',
        tags: ['files'],
        summary: 'Make a directory and those above it',
        params: capsuleParamsSchema,
        body: mkdirRequestSchema,
        response: { 200: mkdirResponseSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { path, user } = request.body;
      const gone = clientGone(request, reply);
      const entry = await withGuest(deps, request.caller, request.params.id, 'a request', gone, (guest) =>
        makeDir(guest, { path, user }, gone),
      );
      return { entry };
    },
  );

  app.post(
    '/capsules/:id/files/remove',
    {
      config: {
        permission: 'capsule.access',
        audit: { resource: 'capsule', action: 'file_remove', details: pathDetails },
      },
      schema: {
        operationId: 'removePath',
        tags: ['files'],
        summary: 'Remove a file, or a directory with all that is in it',
        params: capsuleParamsSchema,
        body: removeRequestSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { path, user } = request.body;
      const gone = clientGone(request, reply);
      await withGuest(deps, request.caller, request.params.id, 'a removal', gone, (guest) =>
        removePath(guest, { path, user }, gone),
      );
      reply.code(204);
      return null;
    },
  );
}

async function sendFile(
  guest: Guest,
  place: { path: string; user: string | undefined },
  reply: FastifyReply,
  gone: AbortSignal,
): Promise<FastifyReply> {
  const file = await readFile(guest, place, gone);
  const length = file.headers['content-length'];
  if (length !== undefined && !/^\d+$/.test(length)) {
    file.destroy();
    throw new WrennError('guest_protocol_error', { id: guest.capsuleId });
  }
  // Of the guest's headers only the length is taken over: what it sends belongs to whoever runs code in it.
  reply.type('application/octet-stream').header('x-content-type-options', 'nosniff');
  if (length !== undefined) reply.header('content-length', length);
  return sendStream(reply, file);
}
