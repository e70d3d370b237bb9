import fastifySwagger from '@fastify/swagger';
import scalar from '@scalar/fastify-api-reference';
import { jsonSchemaTransform, jsonSchemaTransformObject } from 'fastify-type-provider-zod';
import type { Server } from '../http/server.ts';
import { PROGRAM_VERSION } from '../version.ts';

const DESCRIPTION = `Run untrusted code in microVMs.

Every request below /v1 carries an API key in the header \`X-API-Key\`. Errors have one form: \`error.code\` is the family,
\`error.reason\` the exact code, \`error.remedy\` what to do next. Every answer has an \`X-Request-Id\`.`;

/** Must be registered before the routes that it describes. */
export async function registerOpenApi(app: Server): Promise<void> {
  await app.register(fastifySwagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Wrenn', version: PROGRAM_VERSION, description: DESCRIPTION },
      tags: [
        { name: 'capsules', description: 'microVMs' },
        { name: 'processes', description: 'Commands and terminals in a capsule' },
        { name: 'files', description: 'Files in a capsule' },
        { name: 'server', description: 'The server itself' },
      ],
      components: { securitySchemes: { apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key' } } },
      security: [{ apiKey: [] }],
    },
    transform: describeRoute,
    transformObject: jsonSchemaTransformObject,
  });
  await app.register(scalar, {
    routePrefix: '/docs',
    configuration: { url: '/openapi.json', title: 'Wrenn API', withDefaultFonts: false, telemetry: false },
  });
  app.get('/openapi.json', { schema: { hide: true } }, async (_request, reply) => {
    reply.type('application/json').serializer((document: unknown) => JSON.stringify(document));
    return app.swagger();
  });
}

/** The plugin for WebSockets hides its routes, since an upgrade has no body to describe; its frames are described. */
const describeRoute: typeof jsonSchemaTransform = (document) => {
  const { websocket } = (document as { route?: { websocket?: boolean } }).route ?? {};
  if (!websocket) return jsonSchemaTransform(document);
  const described = jsonSchemaTransform({ ...document, schema: { ...document.schema, hide: false } });
  return {
    ...described,
    schema: { ...described.schema, response: { 101: { description: 'The WebSocket is open.', type: 'null' } } },
  };
};
