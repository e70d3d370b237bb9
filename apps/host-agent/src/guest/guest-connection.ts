import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { traceHeaders } from '@wrenn/tracing/spans';

/** The port that envd listens on in every guest. */
export const ENVD_PORT = 49_983;

/**
 * A guest that is not up yet drops the first packet, and the kernel would send it again only after a second; a new
 * attempt sees the guest sooner.
 */
const CONNECT_ATTEMPT_MS = 120;
/** Short at first, for guests that have just been restored; longer for those that boot. */
const RETRY_PAUSE_MS = { first: 5, longest: 50 } as const;
const BODY_LIMIT = 64 * 1024;

export interface GuestRequest {
  /** Address of the guest from the host's side. */
  readonly hostIp: string;
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly body?: unknown;
}

export interface GuestAnswer {
  readonly status: number;
  /** At most 64 KiB of it. */
  readonly text: string;
}

/**
 * Sends one request to envd, again and again until something answers: a guest that has just been started is not there
 * at once. The request must be one that may be repeated.
 *
 * @throws the signal's reason when it fires first.
 */
export async function askGuest(request: GuestRequest, signal: AbortSignal): Promise<GuestAnswer> {
  for (let pauseMs: number = RETRY_PAUSE_MS.first; ; pauseMs = Math.min(pauseMs * 1.2, RETRY_PAUSE_MS.longest)) {
    try {
      // One that has fired is no event for an attempt any more, which then would last as long as the kernel tries.
      signal.throwIfAborted();
      const socket = await connectOnce(request.hostIp, signal);
      return await exchange(socket, request, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!isConnectionFailure(error)) throw error;
      await sleep(pauseMs, undefined, { signal }).catch(() => undefined);
    }
  }
}

/** Opens one connection, with a short deadline. */
function connectOnce(host: string, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port: ENVD_PORT, noDelay: true });
    const attempt = AbortSignal.any([signal, AbortSignal.timeout(CONNECT_ATTEMPT_MS)]);
    const giveUp = () => socket.destroy(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' }));
    const settle = () => attempt.removeEventListener('abort', giveUp);
    attempt.addEventListener('abort', giveUp, { once: true });
    socket.once('connect', () => {
      settle();
      socket.removeAllListeners('error');
      resolve(socket);
    });
    socket.once('error', (error) => {
      settle();
      reject(error);
    });
  });
}

function exchange(socket: Socket, request: GuestRequest, signal: AbortSignal): Promise<GuestAnswer> {
  const body = request.body === undefined ? undefined : JSON.stringify(request.body);
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest({
      createConnection: () => socket,
      method: request.method,
      path: request.path,
      headers: {
        Host: `${request.hostIp}:${ENVD_PORT}`,
        Connection: 'close',
        ...(body === undefined
          ? {}
          : { 'Content-Type': 'application/json', 'Content-Length': String(Buffer.byteLength(body)) }),
        ...traceHeaders(),
        ...request.headers,
      },
      signal,
    });
    outgoing.on('error', (error) => {
      socket.destroy();
      reject(error);
    });
    outgoing.on('response', (response: IncomingMessage) => {
      const chunks: Buffer[] = [];
      let size = 0;
      response.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size <= BODY_LIMIT) chunks.push(chunk);
        else response.destroy();
      });
      response.on('error', reject);
      response.on('close', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() }));
    });
    outgoing.end(body);
  });
}

const CONNECTION_FAILURES = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EPIPE',
  'ETIMEDOUT',
]);

function isConnectionFailure(error: unknown): boolean {
  return error instanceof Error && CONNECTION_FAILURES.has((error as NodeJS.ErrnoException).code ?? '');
}
