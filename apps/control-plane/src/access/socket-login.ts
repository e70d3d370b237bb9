import type { WebSocket } from '@fastify/websocket';
import { WrennError } from '@wrenn/protocol/errors';
import { toRestError } from '@wrenn/protocol/rest/error';
import type { FastifyRequest } from 'fastify';
import type { RawData } from 'ws';
import { z } from 'zod';
import { streamFailed } from '../audit/record-requests.ts';
import { toCatalogue } from '../http/error-handler.ts';

export type SocketHandler = (socket: WebSocket, request: FastifyRequest) => void | Promise<void>;

/** How long a client may take to say who it is. */
const LOGIN_TIMEOUT_MS = 5000;
const LOGIN_LIMIT_BYTES = 16 * 1024;
/** A policy of the server was broken; RFC 6455, 7.4.1. */
const CLOSE_POLICY = 1008;

const loginSchema = z.object({ type: z.literal('auth'), token: z.string().min(1) });

/**
 * Lets a WebSocket whose request had no credential, as a browser's has none, send one in its first message:
 * `{"type":"auth","token":…}`. The handler sees neither that message nor a socket of which nobody is known.
 *
 * @param admit sets who it is on the request, or throws why that one may not
 */
export function logInFirst(
  handler: SocketHandler,
  admit: (request: FastifyRequest, credential: string) => Promise<void>,
): SocketHandler {
  return async (socket, request) => {
    if (request.principal) return handler(socket, request);
    const messages = new EarlyMessages(socket);
    try {
      await admit(request, tokenOf(await messages.first()));
    } catch (error) {
      messages.drop();
      refuse(socket, request, error);
      return;
    }
    // Without listeners for its end the handler would wait for ever.
    if (socket.readyState !== socket.OPEN) return;
    const handling = handler(socket, request);
    messages.passOn();
    return handling;
  };
}

function tokenOf(message: string | undefined): string {
  try {
    return loginSchema.parse(JSON.parse(message ?? '')).token;
  } catch (cause) {
    throw new WrennError('unauthorized', {}, { cause });
  }
}

function refuse(socket: WebSocket, request: FastifyRequest, error: unknown): void {
  const known = toCatalogue(error);
  request.log.info({ err: error, code: known.code }, 'a WebSocket was refused');
  // Of nobody there is nothing to write down.
  if (request.principal) streamFailed(request, known);
  if (socket.readyState !== socket.OPEN) return;
  const frame = { type: 'error', data: known.message, fatal: true, error: toRestError(known, request.id) };
  socket.send(JSON.stringify(frame));
  socket.close(CLOSE_POLICY);
}

/** What comes before it is known from whom: kept, as little of it as can be. */
class EarlyMessages {
  readonly #socket: WebSocket;
  readonly #kept: { readonly data: RawData; readonly isBinary: boolean }[] = [];
  #onFirst: (() => void) | undefined;

  constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', this.#keep);
  }

  /** The first message; undefined when none comes in time, or it is no text, or too long. */
  async first(): Promise<string | undefined> {
    const socket = this.#socket;
    if (this.#kept.length === 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, LOGIN_TIMEOUT_MS);
      this.#onFirst = resolve;
      socket.once('close', resolve);
      await promise;
      clearTimeout(timer);
      socket.off('close', resolve);
    }
    const first = this.#kept.shift();
    if (!first || first.isBinary) return undefined;
    const text = String(first.data);
    return text.length <= LOGIN_LIMIT_BYTES ? text : undefined;
  }

  /** Gives what came after the first message to the listeners that the socket has now. */
  passOn(): void {
    this.#socket.off('message', this.#keep);
    for (const { data, isBinary } of this.#kept) this.#socket.emit('message', data, isBinary);
    this.#socket.resume();
  }

  /** Whatever else comes is nobody's, but for the client's part of the closing. */
  drop(): void {
    this.#socket.off('message', this.#keep);
    this.#socket.resume();
  }

  readonly #keep = (data: RawData, isBinary: boolean): void => {
    this.#kept.push({ data, isBinary });
    // More is for the handler, and may wait in the connection.
    this.#socket.pause();
    this.#onFirst?.();
  };
}
