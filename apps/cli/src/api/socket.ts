import type { IncomingMessage } from 'node:http';
import { WebSocket } from 'ws';
import { CliError } from '../cli-error.ts';
import type { Connection } from '../connection.ts';
import { parseApiError } from './api-error.ts';
import { explainUnreachable } from './http.ts';
import { traceFromEnvironment } from './trace-environment.ts';

const HANDSHAKE_TIMEOUT_MS = 30_000;
/** A server that answers no ping for two rounds is gone. */
const PING_EVERY_MS = 20_000;
const MAX_ERROR_BODY_BYTES = 65_536;

/** A WebSocket of the API whose frames from the client are JSON or bytes. */
export interface ApiSocket extends Disposable {
  readonly socket: WebSocket;
  /** Resolves when the frame is on its way, so that a sender can wait for it. Rejects when the socket is closed. */
  send(frame: object | Uint8Array): Promise<void>;
  /** Rejects when the connection is lost or the signal aborts. Never resolves. */
  readonly failed: Promise<never>;
}

/** The connection broke, or could not be made. What runs in the capsule is not touched by that. */
export class ConnectionLost extends CliError {}

/**
 * Opens a WebSocket. It closes when the signal aborts or the object is disposed.
 *
 * @throws ApiError when the API refuses, CliError when it cannot be reached.
 */
export async function openSocket(connection: Connection, path: string, signal: AbortSignal): Promise<ApiSocket> {
  signal.throwIfAborted();
  const socket = new WebSocket(`${connection.baseUrl.replace(/^http/, 'ws')}${path}`, {
    headers: {
      ...traceFromEnvironment(),
      ...(connection.credential === undefined ? {} : { Authorization: `Bearer ${connection.credential}` }),
    },
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    perMessageDeflate: false,
    maxPayload: 64 * 1024 * 1024,
  });
  const failure = Promise.withResolvers<never>();
  // The failure is also told by whatever waits at that moment; alone it must not end the process.
  failure.promise.catch(() => undefined);
  const abort = () => failure.reject(signal.reason);
  signal.addEventListener('abort', abort);
  let answered = true;
  const pings = setInterval(() => {
    if (!answered) failure.reject(lost(connection));
    answered = false;
    if (socket.readyState === WebSocket.OPEN) socket.ping();
  }, PING_EVERY_MS);
  const dispose = () => {
    clearInterval(pings);
    signal.removeEventListener('abort', abort);
    closeSocket(socket);
  };
  const alive = () => {
    answered = true;
  };
  socket.on('pong', alive);
  socket.on('message', alive);
  socket.on('close', () => failure.reject(lost(connection)));
  socket.on('error', (error) => failure.reject(unreachable(connection, error)));
  socket.on('unexpected-response', (_request, response) => {
    readRefusal(response).then(
      (text) => failure.reject(parseApiError(response.statusCode ?? 0, text, connection.baseUrl)),
      (error) => failure.reject(explainUnreachable(connection.baseUrl, error)),
    );
  });
  const opened = Promise.withResolvers<void>();
  socket.once('open', () => {
    // The first frames may have come together with the answer, before anybody listens to them.
    socket.pause();
    opened.resolve();
  });
  try {
    await Promise.race([failure.promise, opened.promise]);
  } catch (error) {
    dispose();
    throw error;
  }
  return {
    socket,
    failed: failure.promise,
    send: (frame) =>
      new Promise((resolve, reject) => {
        const data = frame instanceof Uint8Array ? frame : JSON.stringify(frame);
        socket.send(data, (error) => (error ? reject(lost(connection, error)) : resolve()));
      }),
    [Symbol.dispose]: dispose,
  };
}

function unreachable({ baseUrl }: Connection, cause: Error): ConnectionLost {
  const { message, remedy } = explainUnreachable(baseUrl, cause);
  return new ConnectionLost(message, remedy, { cause });
}

function lost(connection: Connection, cause?: Error): ConnectionLost {
  return new ConnectionLost(
    `The connection to ${connection.baseUrl} was lost.`,
    'Check that the platform runs (`wrenn doctor`) and try again.',
    { cause },
  );
}

function closeSocket(socket: WebSocket): void {
  if (socket.readyState === WebSocket.CONNECTING) socket.terminate();
  else socket.close();
  // A server that does not answer the close must not keep this process.
  const timer = setTimeout(() => socket.terminate(), 1000);
  timer.unref();
  socket.once('close', () => clearTimeout(timer));
}

async function readRefusal(response: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of response) {
    text += String(chunk);
    if (text.length > MAX_ERROR_BODY_BYTES) break;
  }
  return text;
}
