import { type IncomingMessage, request } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type Client, createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { Filesystem } from '@wrenn/protocol/gen/filesystem/filesystem_pb';
import { Process } from '@wrenn/protocol/gen/process/process_pb';
import { tracedCalls } from '@wrenn/tracing/connect';
import { traceHeaders } from '@wrenn/tracing/spans';
import type { Host } from '../hosts/host.ts';
import { TunnelAgent } from '../hosts/tunnel.ts';
import { unlessAborted } from './unless-aborted.ts';

/** Port of envd in every guest. */
const ENVD_PORT = 49_983;
/** Idle connections that are kept for the next call to the same guest. */
const KEPT_CONNECTIONS = 4;
/** The name only fills the Host header. */
const BASE_URL = 'http://envd';

/** The connection to envd of one guest. */
export interface Guest extends Disposable {
  readonly capsuleId: string;
  readonly processes: Client<typeof Process>;
  readonly filesystem: Client<typeof Filesystem>;
  /** One HTTP request. `body`, if any, is sent to its end before this resolves. */
  fetch(options: GuestRequest): Promise<IncomingMessage>;
}

export interface GuestRequest {
  readonly method: 'GET' | 'POST';
  /** With its query. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Readable;
  readonly signal: AbortSignal;
}

export function openGuest(host: Host, capsuleId: string, accessToken: string): Guest {
  const agent = new TunnelAgent(() => host.tunnel(capsuleId, ENVD_PORT), {
    keepAlive: true,
    maxFreeSockets: KEPT_CONNECTIONS,
    scheduling: 'lifo',
  });
  const credentials = { 'x-access-token': accessToken };
  const transport = createConnectTransport({
    httpVersion: '1.1',
    baseUrl: BASE_URL,
    nodeOptions: { agent },
    acceptCompression: [],
    interceptors: [
      tracedCalls,
      (next) => (call) => {
        call.header.set('x-access-token', accessToken);
        return next(call);
      },
    ],
  });
  return {
    capsuleId,
    processes: createClient(Process, transport),
    filesystem: createClient(Filesystem, transport),
    fetch: (options) =>
      fetchThrough(agent, { ...options, headers: { ...options.headers, ...traceHeaders(), ...credentials } }),
    [Symbol.dispose]: () => agent.destroy(),
  };
}

async function fetchThrough(agent: TunnelAgent, options: GuestRequest): Promise<IncomingMessage> {
  const { method, path, headers, body, signal } = options;
  const outgoing = request(`${BASE_URL}${path}`, { agent, method, signal, ...(headers ? { headers } : {}) });
  const response = new Promise<IncomingMessage>((resolve, reject) => {
    outgoing.once('response', resolve);
    outgoing.once('error', reject);
    outgoing.once('close', () => reject(new Error('the connection ended before an answer came')));
  });
  // A request that waits for its connection tells that it was aborted only when it has one.
  const answered = unlessAborted(response, signal);
  // Awaited below; an early failure must not count as unhandled until then.
  answered.catch(() => undefined);
  if (!body) {
    outgoing.end();
    return answered;
  }
  const sent = pipeline(body, outgoing, { signal });
  try {
    // A guest that refuses answers before it has read everything.
    await Promise.race([sent, answered]);
  } catch (error) {
    outgoing.destroy();
    // What the body failed with says more than what that did to the connection.
    throw body.errored ?? error;
  }
  const answer = await answered;
  if (answer.statusCode !== undefined && answer.statusCode >= 300) {
    body.unpipe(outgoing);
    sent.catch(() => undefined);
  } else {
    await sent;
  }
  return answer;
}
