import fastifyMultipart from '@fastify/multipart';
import fastifyWebsocket from '@fastify/websocket';
import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyRequest, LogController } from 'fastify';
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Logger } from 'pino';
import type { Caller } from '../capsules/capsules.ts';
import { handleError, handleUnknownRoute } from './error-handler.ts';

/** JSON bodies; commands may be long. Files do not count. */
const BODY_LIMIT_BYTES = 8 * 1024 * 1024;
/** One WebSocket message of a client. */
const MESSAGE_LIMIT_BYTES = 4 * 1024 * 1024;
const HEADERS_TIMEOUT_MS = 30_000;
const KEEP_ALIVE_MS = 75_000;

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks; set before a route below /v1 runs. */
    caller: Caller;
  }
}

export type Server = FastifyInstance<
  import('node:http').Server,
  import('node:http').IncomingMessage,
  import('node:http').ServerResponse,
  FastifyBaseLogger,
  ZodTypeProvider
>;

/** A server with everything but its routes. */
export async function createServer(log: Logger): Promise<Server> {
  const app = Fastify({
    loggerInstance: log as FastifyBaseLogger,
    genReqId: requestId,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    return503OnClosing: false,
    bodyLimit: BODY_LIMIT_BYTES,
    keepAliveTimeout: KEEP_ALIVE_MS,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 256 },
    // Requests last as long as what they ask for: an exec of hours, an upload over a slow line.
    requestTimeout: 0,
    http: { headersTimeout: HEADERS_TIMEOUT_MS },
  }).withTypeProvider<ZodTypeProvider>();
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  app.setErrorHandler(handleError);
  app.setNotFoundHandler(handleUnknownRoute);
  app.decorateRequest('caller', null as unknown as Caller);
  acceptEmptyJson(app);
  let isClosing = false;
  app.addHook('preClose', async () => {
    isClosing = true;
  });
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
    if (isClosing) throw new WrennError('shutting_down');
  });
  app.addHook('onSend', async (_request, reply) => {
    // Else the connection would be kept for requests that are refused.
    if (isClosing) reply.header('connection', 'close');
  });
  app.addHook('onResponse', async (request, reply) => {
    request.log.info(
      {
        method: request.method,
        path: request.url.split('?')[0],
        status: reply.statusCode,
        durationMs: Math.round(reply.elapsedTime * 10) / 10,
        actor: request.caller?.actor,
      },
      'request',
    );
  });
  await app.register(fastifyMultipart, { throwFileSizeLimit: false });
  await app.register(fastifyWebsocket, { options: { maxPayload: MESSAGE_LIMIT_BYTES, perMessageDeflate: false } });
  return app;
}

/** The client's own id where it sent a usable one. */
function requestId(request: { headers: Record<string, string | string[] | undefined> }): string {
  const given = request.headers['x-request-id'];
  return typeof given === 'string' && /^[\w.:-]{1,128}$/.test(given) ? given : newId('req');
}

/** Some clients name JSON as the type of a body that they do not send. */
function acceptEmptyJson(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined);
    else parse(request, body as string, done);
  });
}

/** The key that a request carries. */
export function readKey(request: FastifyRequest): string | undefined {
  const key = request.headers['x-api-key'];
  if (typeof key === 'string') return key;
  return /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
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
