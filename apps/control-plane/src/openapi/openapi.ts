import fastifySwagger from '@fastify/swagger';
import scalar from '@scalar/fastify-api-reference';
import type { RouteOptions } from 'fastify';
import { jsonSchemaTransformObject } from 'fastify-type-provider-zod';
import { SESSION_COOKIE } from '../access/session-cookie-name.ts';
import type { Server } from '../http/server.ts';
import { PROGRAM_VERSION } from '../version.ts';
import { describeRoute } from './describe-route.ts';

const DOCUMENT = '/openapi.';

const DESCRIPTION = `Run untrusted code in microVMs.

A request carries an API key in the header \`X-API-Key\`, or as \`Authorization: Bearer\` a key or the token of a login.
Pages of this server use a cookie instead. A WebSocket that can send none of these sends
\`{"type":"auth","token":"…"}\` as its first message, within 5 seconds.

Errors have one form: \`error.code\` is the family, \`error.reason\` the exact code, \`error.remedy\` what to do next.
Every answer has an \`X-Request-Id\`.`;

/** What operations are about, in the order of the reference page. */
const TAGS = [
  { name: 'capsules', description: 'microVMs' },
  { name: 'processes', description: 'Commands and terminals in a capsule' },
  { name: 'files', description: 'Files in a capsule' },
  { name: 'snapshots', description: 'Capsules that are kept to start others from' },
  { name: 'auth', description: 'Signing up, logging in and out' },
  { name: 'account', description: "One's own account, sessions and ways to log in" },
  { name: 'teams', description: 'Teams and their members' },
  { name: 'invitations', description: 'Invitations to teams' },
  { name: 'api-keys', description: 'Credentials of programs' },
  { name: 'channels', description: 'Where events are told' },
  { name: 'usage', description: 'What capsules use, what it costs, and its limits' },
  { name: 'audit', description: 'What was done, by whom' },
  { name: 'hosts', description: 'Machines that run capsules' },
  { name: 'admin', description: 'The platform, for its administrators' },
  { name: 'server', description: 'The server itself' },
];

const SECURITY_SCHEMES = {
  apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key', description: 'An API key, `wrn_` and 40 hex characters.' },
  bearer: { type: 'http', scheme: 'bearer', description: 'The token of a login. API keys are taken here too.' },
  cookie: {
    type: 'apiKey',
    in: 'cookie',
    name: SESSION_COOKIE,
    description: 'The token of a login, for pages of this server: what changes something needs their Origin.',
  },
  hostToken: {
    type: 'apiKey',
    in: 'header',
    name: 'X-Host-Token',
    description: 'The token that an agent got when it registered its host, or when it last refreshed its credentials.',
  },
} as const;

/** Must be registered before the routes that it describes. */
export async function registerOpenApi(app: Server): Promise<void> {
  app.addHook('onRoute', requireDescription);
  await app.register(fastifySwagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Wrenn', version: PROGRAM_VERSION, description: DESCRIPTION },
      servers: [{ url: '/', description: 'The server that this came from' }],
      tags: TAGS,
      components: { securitySchemes: SECURITY_SCHEMES },
    },
    transform: describeRoute,
    transformObject: jsonSchemaTransformObject,
  });
  await app.register(scalar, {
    routePrefix: '/docs',
    configuration: { url: '/openapi.json', title: 'Wrenn API', withDefaultFonts: false, telemetry: false },
  });
  const route = { config: { permission: 'public' }, schema: { hide: true } } as const;
  app.get(`${DOCUMENT}json`, route, async (_request, reply) => {
    reply.type('application/json').serializer((document: unknown) => JSON.stringify(document));
    return app.swagger();
  });
  app.get(`${DOCUMENT}yaml`, route, async (_request, reply) => {
    reply.type('application/yaml').serializer((document: string) => document);
    return app.swagger({ yaml: true });
  });
}

/** Every route is in the document, so that no client has to guess, but other addresses of what everybody may use. */
function requireDescription({ method, url, schema, config }: RouteOptions): void {
  if (method === 'HEAD' || url.startsWith(DOCUMENT) || /^\/docs(\/|$)/.test(url)) return;
  const { operationId, tags, summary, hide } = schema ?? {};
  if (hide && config?.permission === 'public') return;
  if (hide || !operationId || !tags?.length || !summary) throw new Error(`the route ${method} ${url} is not described`);
}
