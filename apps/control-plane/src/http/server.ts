import type { IncomingMessage } from 'node:http';
import fastifyCookie from '@fastify/cookie';
import fastifyMultipart from '@fastify/multipart';
import fastifyWebsocket from '@fastify/websocket';
import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify';
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Logger } from 'pino';
import { type GuardDeps, guardRoutes } from '../access/guard.ts';
import { recordRequests } from '../audit/record-requests.ts';
import type { AuditSink } from '../audit/trail.ts';
import type { Caller } from '../capsules/capsules.ts';
import { endConnectionIfClosing } from './close-server.ts';
import { answerUnroutable, handleError, handleUnknownRoute } from './error-handler.ts';
import { acceptJson } from './json-body.ts';
import { answerMalformed } from './malformed-request.ts';

/** JSON bodies; commands may be long. Files do not count. */
const BODY_LIMIT_BYTES = 8 * 1024 * 1024;
/** One WebSocket message of a client. */
const MESSAGE_LIMIT_BYTES = 4 * 1024 * 1024;
const HEADERS_TIMEOUT_MS = 30_000;
/** What tells that the server is closing. */
const SERVED_TO_THE_END = new Set(['/health', '/ready']);
const KEEP_ALIVE_MS = 75_000;

export type Server = FastifyInstance<
  import('node:http').Server,
  import('node:http').IncomingMessage,
  import('node:http').ServerResponse,
  FastifyBaseLogger,
  ZodTypeProvider
>;

export interface ServerOptions extends GuardDeps {
  /** Proxies whose X-Forwarded headers count: addresses or networks. */
  readonly trustedProxies: readonly string[];
  readonly audit: AuditSink;
}

/** A server with everything but its routes. */
export async function createServer(log: Logger, options: ServerOptions): Promise<Server> {
  const app = Fastify({
    loggerInstance: log as FastifyBaseLogger,
    genReqId: requestId,
    clientErrorHandler: answerMalformed,
    frameworkErrors: answerUnroutable,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    return503OnClosing: false,
    bodyLimit: BODY_LIMIT_BYTES,
    keepAliveTimeout: KEEP_ALIVE_MS,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 256 },
    // Requests last as long as what they ask for: an exec of hours, an upload over a slow line.
    requestTimeout: 0,
    http: { headersTimeout: HEADERS_TIMEOUT_MS },
    trustProxy: options.trustedProxies.length > 0 ? [...options.trustedProxies] : false,
  }).withTypeProvider<ZodTypeProvider>();
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  app.setErrorHandler(handleError);
  app.setNotFoundHandler(handleUnknownRoute);
  app.decorateRequest('principal', undefined);
  app.decorateRequest('caller', null as unknown as Caller);
  acceptJson(app);
  app.server.on('request', (request, response) => endConnectionIfClosing(app.server, request, response));
  let isClosing = false;
  app.addHook('preClose', async () => {
    isClosing = true;
  });
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
    if (isClosing && !SERVED_TO_THE_END.has(request.routeOptions.url ?? '')) throw new WrennError('shutting_down');
  });
  app.addHook('onSend', async (_request, reply) => {
    // Else the connection would be kept for requests that are refused.
    if (isClosing) reply.header('connection', 'close');
  });
  app.addHook('onResponse', async (request, reply) => {
    // A WebSocket that was refused: its connection is nobody's, and would stay open as long as the client likes.
    if (isUpgrade(request.raw)) request.raw.socket.destroy();
    request.log.info(
      {
        method: request.method,
        path: request.url.split('?')[0],
        status: reply.statusCode,
        durationMs: Math.round(reply.elapsedTime * 10) / 10,
        actor: request.principal?.id,
      },
      'request',
    );
  });
  await app.register(fastifyCookie);
  guardRoutes(app, options);
  recordRequests(app, options.audit);
  await app.register(fastifyMultipart, { throwFileSizeLimit: false });
  await app.register(fastifyWebsocket, { options: { maxPayload: MESSAGE_LIMIT_BYTES, perMessageDeflate: false } });
  app.websocketServer.on('connection', (socket, raw) => options.connections.upgrade(raw, socket));
  return app;
}

/** Whether HTTP ended with the request's headers: node's own mark, which its types leave out. */
function isUpgrade(request: IncomingMessage & { readonly upgrade?: boolean | null }): boolean {
  return request.upgrade === true;
}

/** The client's own id where it sent a usable one. */
function requestId(request: { headers: Record<string, string | string[] | undefined> }): string {
  const given = request.headers['x-request-id'];
  return typeof given === 'string' && /^[\w.:-]{1,128}$/.test(given) ? given : newId('req');
}

/** Listens, and turns the system's refusals into one clear message. */
export async function listen(app: Server, host: string | undefined, port: number): Promise<number> {
  try {
    await app.listen({ host: host ?? '::', port });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // A machine without IPv6.
    if (host === undefined && (code === 'EAFNOSUPPORT' || code === 'EADDRNOTAVAIL'))
      await app.listen({ host: '0.0.0.0', port });
    else if (code === 'EADDRINUSE')
      throw new Error(`Another program listens on port ${port}; set WRENN_CP_LISTEN_ADDR.`, { cause: error });
    else throw error;
  }
  const address = app.server.address();
  if (address === null || typeof address === 'string') throw new WrennError('internal_error');
  return address.port;
}
