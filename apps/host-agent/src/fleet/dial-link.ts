import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import {
  CONTROL_PLANE_HEADER,
  HOST_TOKEN_HEADER,
  LINK_BOOT_ID_HEADER,
  LINKED_HEADER,
  linkPath,
} from '@wrenn/protocol/host-link';
import { createWebSocketStream, WebSocket } from 'ws';

const HANDSHAKE_TIMEOUT_MS = 15_000;
const PING_MS = 15_000;
/** A control plane of which nothing came for so long is gone, whatever TCP believes. */
const SILENCE_MS = 40_000;
const HTTP_CONFLICT = 409;
const REFUSAL_BYTES = 2000;

/** A byte stream to one control plane. */
export interface Link {
  /** Id of the control plane. */
  readonly controlPlane: string;
  readonly stream: Duplex;
  readonly closed: Promise<void>;
  close(): void;
}

export type DialOutcome =
  | { readonly kind: 'linked'; readonly link: Link }
  /** The control plane that answered has its link already. */
  | { readonly kind: 'held' }
  | { readonly kind: 'refused'; readonly error: Error };

export interface DialOptions {
  readonly cpUrl: string;
  readonly hostId: string;
  readonly token: () => string;
  readonly bootId?: string;
  /** Ids of the control planes that have a link. */
  readonly linked: readonly string[];
  readonly signal: AbortSignal;
}

/** Asks for one more link. Never throws. */
export function dialLink({ cpUrl, hostId, token, bootId, linked, signal }: DialOptions): Promise<DialOutcome> {
  const { promise, resolve } = Promise.withResolvers<DialOutcome>();
  const refuse = (error: Error) => resolve({ kind: 'refused', error });
  let socket: WebSocket;
  try {
    socket = new WebSocket(`${cpUrl.replace(/\/+$/, '').replace(/^http/, 'ws')}${linkPath(hostId)}`, {
      headers: {
        [HOST_TOKEN_HEADER]: token(),
        ...(bootId === undefined ? {} : { [LINK_BOOT_ID_HEADER]: bootId }),
        ...(linked.length > 0 ? { [LINKED_HEADER]: linked.join(',') } : {}),
      },
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      perMessageDeflate: false,
    });
  } catch (error) {
    refuse(error as Error);
    return promise;
  }
  const stop = () => socket.terminate();
  signal.addEventListener('abort', stop, { once: true });
  socket.once('close', () => signal.removeEventListener('abort', stop));
  let controlPlane: string | undefined;
  socket.once('upgrade', ({ headers }) => {
    controlPlane = readId(headers[CONTROL_PLANE_HEADER]);
  });
  socket.once('unexpected-response', (_request, answer) => {
    if (answer.statusCode === HTTP_CONFLICT && linked.includes(readId(answer.headers[CONTROL_PLANE_HEADER]) ?? '')) {
      resolve({ kind: 'held' });
      socket.terminate();
      return;
    }
    void describe(answer).then((why) => {
      refuse(new Error(why));
      socket.terminate();
    });
  });
  socket.once('open', () => {
    if (controlPlane !== undefined) {
      resolve({ kind: 'linked', link: toLink(socket, controlPlane) });
      return;
    }
    refuse(new Error('whatever answers there is no control plane'));
    socket.terminate();
  });
  socket.on('error', refuse);
  return promise;
}

function readId(header: string | string[] | undefined): string | undefined {
  return typeof header === 'string' && header !== '' ? header : undefined;
}

/** What a refusal says, as far as it is of use to a person. */
async function describe(answer: IncomingMessage): Promise<string> {
  let text = '';
  answer.setEncoding('utf8');
  try {
    for await (const part of answer) {
      text += part;
      if (text.length > REFUSAL_BYTES) break;
    }
  } catch {
    // Its first line says enough.
  }
  return `the control plane answered with ${answer.statusCode}: ${text.slice(0, REFUSAL_BYTES)}`;
}

function toLink(socket: WebSocket, controlPlane: string): Link {
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  const stream = createWebSocketStream(socket);
  // What follows from it is done when it closes.
  stream.on('error', () => stream.destroy());
  let heardMs = performance.now();
  const hear = () => {
    heardMs = performance.now();
  };
  socket.on('pong', hear);
  socket.on('message', hear);
  const ping = setInterval(() => {
    // One that is not read from has said something.
    if (!socket.isPaused && performance.now() - heardMs > SILENCE_MS) socket.terminate();
    else socket.ping();
  }, PING_MS);
  ping.unref();
  socket.once('close', () => {
    clearInterval(ping);
    stream.destroy();
    resolve();
  });
  return { controlPlane, stream, closed, close: () => socket.terminate() };
}
