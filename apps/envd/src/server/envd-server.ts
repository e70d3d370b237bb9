import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { WrennError } from '@wrenn/protocol/errors';
import type { ActivityOptions } from '../activity/activity.ts';
import type { GuestState } from '../guest-state.ts';
import type { GuestSystem } from '../system/init.ts';
import { E2B_ENVD_VERSION, ENVD_VERSION } from '../version.ts';
import { secretsEqual } from './access-token.ts';
import { answerCors, isForeignPage } from './cors.ts';
import { readJson, sendError, sendJson } from './rest-answer.ts';
import type { RpcHandler } from './rpc-handler.ts';

export interface EnvdServerOptions {
  readonly state: GuestState;
  /** Undefined on a machine that is no guest. */
  readonly system: GuestSystem | undefined;
  /** Loaded at the first call, or when whoever starts the server finds it convenient. */
  readonly rpc: () => Promise<RpcHandler>;
  /** Resolves when everything is loaded that a snapshot should hold loaded. */
  readonly ready: () => Promise<void>;
  /** Called when somebody else than before has the token. */
  readonly onNewToken: () => void;
  readonly activity: ActivityOptions;
}

/** Longer than any proxy keeps a connection, so that it is never envd that closes one that is about to be used. */
const KEEP_ALIVE_MS = 640_000;
const HEADERS_TIMEOUT_MS = 60_000;

type Route = (request: IncomingMessage, response: ServerResponse, query: URLSearchParams) => void | Promise<void>;

export function createEnvdServer(options: EnvdServerOptions): Server {
  const connections = new Set<Socket>();
  const routes = createRoutes(options, connections);
  const server = createServer(
    { keepAliveTimeout: KEEP_ALIVE_MS, headersTimeout: HEADERS_TIMEOUT_MS },
    (request, response) => {
      handle(request, response, routes, options).catch((error: unknown) => {
        // Nobody is left to hear of an upload or download that its client broke off.
        if (request.destroyed && response.destroyed) return;
        sendError(response, error);
        // The client may be sending still, and reads the answer only when it has sent all. Later, because whoever read the
        // body so far lets go of it in the next tick.
        setImmediate(() => request.resume());
      });
    },
  );
  server.on('connection', (socket) => {
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
  });
  // Uploads, downloads and attached processes take as long as they take.
  server.requestTimeout = 0;
  server.timeout = 0;
  return server;
}

async function handle(
  request: IncomingMessage,
  response: ServerResponse,
  routes: ReadonlyMap<string, Route>,
  options: EnvdServerOptions,
): Promise<void> {
  const { state, system } = options;
  if (system === undefined && isForeignPage(request)) throw new WrennError('forbidden');
  if (answerCors(request, response)) return;
  const url = URL.parse(request.url ?? '', 'http://envd');
  if (url === null) throw new WrennError('invalid_request', { problem: 'the URL cannot be parsed' });
  if (url.pathname.startsWith('/process.Process/') || url.pathname.startsWith('/filesystem.Filesystem/')) {
    (await options.rpc())(request, response);
    return;
  }
  const name = `${request.method} ${url.pathname}`;
  if (!OWN_CREDENTIALS.has(name)) requireToken(request, state);
  const route = routes.get(name);
  if (route === undefined) throw new WrennError('not_found', { what: name });
  await route(request, response, url.searchParams);
}

/** Open to all, or with another way to show that one may: the signature of a link. */
const OWN_CREDENTIALS = new Set(['GET /health', 'GET /files', 'HEAD /files', 'POST /files']);

function requireToken({ headers }: IncomingMessage, { accessToken }: GuestState): void {
  if (accessToken === undefined) return;
  const given = headers['x-access-token'];
  if (typeof given !== 'string' || !secretsEqual(accessToken, given)) throw new WrennError('unauthorized');
}

/** A guest that only stood still for a moment goes on with the connections that it has. */
function keepsConnections(body: unknown): boolean {
  return typeof body === 'object' && body !== null && 'keepConnections' in body && body.keepConnections === true;
}

function createRoutes(
  { state, system, ready, onNewToken, activity }: EnvdServerOptions,
  connections: ReadonlySet<Socket>,
): ReadonlyMap<string, Route> {
  // Each imports what it needs when it is called: a start must not wait for what only some guests use.
  const sendFile: Route = async (request, response, query) => {
    const { download } = await import('../files/download.ts');
    await download(request, response, query, state);
  };
  return new Map<string, Route>([
    [
      'GET /health',
      (_request, response) => {
        response.writeHead(204, { 'Wrenn-Envd-Version': ENVD_VERSION, 'E2b-Envd-Version': E2B_ENVD_VERSION }).end();
      },
    ],
    [
      'GET /metrics',
      async (_request, response) => {
        const { readMetrics } = await import('../system/metrics.ts');
        sendJson(response, await readMetrics());
      },
    ],
    [
      'GET /activity',
      async (_request, response) => {
        const { readActivity } = await import('../activity/activity.ts');
        sendJson(response, await readActivity(activity));
      },
    ],
    ['GET /envs', (_request, response) => sendJson(response, Object.fromEntries(state.environment))],
    [
      'POST /init',
      async (request, response) => {
        const { initialize } = await import('../system/init.ts');
        const body = await readJson(request);
        // Again after the wait for the body: another /init may have set or changed the token meanwhile.
        requireToken(request, state);
        const earlierToken = state.accessToken;
        const skipped = initialize(body, state, system);
        if (state.accessToken !== earlierToken) onNewToken();
        // A restored guest remembers connections that nobody has any more, and its network drops what it sends on them. A
        // reader behind one of them would hold its process up.
        if (system && !keepsConnections(body))
          for (const other of connections) if (other !== request.socket) other.destroy();
        response.writeHead(204, skipped.length > 0 ? { 'Wrenn-Skipped': skipped.join(', ') } : {}).end();
      },
    ],
    ['GET /files', sendFile],
    ['HEAD /files', sendFile],
    [
      'POST /files',
      async (request, response, query) => {
        const { upload } = await import('../files/upload.ts');
        sendJson(response, await upload(request, query, state));
      },
    ],
    [
      'POST /files/compose',
      async (request, response) => {
        const { compose } = await import('../files/compose.ts');
        sendJson(response, await compose(await readJson(request), state));
      },
    ],
    [
      'POST /snapshot/prepare',
      async (_request, response) => {
        const { syncFileSystems } = await import('../native/libc.ts');
        await ready();
        await syncFileSystems();
        response.writeHead(204).end();
      },
    ],
  ]);
}
