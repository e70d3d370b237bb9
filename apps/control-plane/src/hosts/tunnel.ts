import { once } from 'node:events';
import { Agent, type AgentOptions, type ClientRequestArgs } from 'node:http';
import { type ClientHttp2Stream, constants, type IncomingHttpHeaders, type IncomingHttpStatusHeader } from 'node:http2';
import type { Duplex } from 'node:stream';
import { WrennError } from '@wrenn/protocol/errors';
import type { HostSession } from './host-session.ts';

const OPEN_TIMEOUT_MS = 15_000;

/** A port of a guest on which nothing listens. The guest itself may be well. */
export class PortClosedError extends WrennError {
  constructor(id: string) {
    super('guest_unreachable', { id, problem: 'nothing listens on that port' });
  }
}

/**
 * A byte stream to a port in a guest, through its host's agent.
 *
 * @throws WrennError `host_unavailable` when the agent does not answer, `guest_unreachable` when the port does not
 */
export async function openTunnel(session: HostSession, vmId: string, port: number): Promise<Duplex> {
  const stream = await session.connectTo(`${vmId}:${port}`);
  // It may fail right after its answer, before anybody else listens.
  stream.on('error', () => undefined);
  const opening = new AbortController();
  // A connection that ends closes its streams without an error.
  const onClose = () => opening.abort(new Error('the connection to the host ended'));
  stream.once('close', onClose);
  try {
    const [headers]: [IncomingHttpHeaders & IncomingHttpStatusHeader] = (await once(stream, 'response', {
      signal: AbortSignal.any([opening.signal, AbortSignal.timeout(OPEN_TIMEOUT_MS)]),
    })) as [IncomingHttpHeaders & IncomingHttpStatusHeader];
    if (headers[':status'] !== 200) throw refusal(vmId, headers[':status']);
    if (stream.destroyed) throw new Error('the tunnel ended as soon as it was open');
  } catch (error) {
    stream.close(constants.NGHTTP2_CANCEL);
    if (error instanceof WrennError) throw error;
    throw new WrennError('host_unavailable', {}, { cause: error });
  } finally {
    stream.off('close', onClose);
  }
  return asSocket(stream);
}

function refusal(id: string, status: number | undefined): WrennError {
  switch (status) {
    case 404:
      return new WrennError('guest_unreachable', { id, problem: 'its microVM is not on its host' });
    case 502:
      return new PortClosedError(id);
    case 503:
      return new WrennError('guest_unreachable', { id, problem: 'its microVM does not run' });
    case 504:
      return new WrennError('guest_unreachable', { id, problem: 'its network does not answer' });
    default:
      return new WrennError('host_unavailable', {}, { cause: new Error(`CONNECT was answered with ${status}`) });
  }
}

/** node:http asks these of the sockets that it keeps for reuse; an HTTP/2 stream does not have them. */
function asSocket(stream: ClientHttp2Stream): Duplex {
  return Object.assign(stream, {
    readyState: 'open',
    setKeepAlive: () => stream,
    setNoDelay: () => stream,
    ref: () => stream,
    unref: () => stream,
  });
}

/** An agent for node:http whose connections are tunnels to one port of one guest. */
export class TunnelAgent extends Agent {
  readonly #open: () => Promise<Duplex>;

  constructor(open: () => Promise<Duplex>, options: AgentOptions) {
    super(options);
    this.#open = open;
  }

  override createConnection(
    _options: ClientRequestArgs,
    callback?: (error: Error | null, stream: Duplex) => void,
  ): Duplex | null | undefined {
    if (!callback) throw new TypeError('a tunnel opens asynchronously');
    this.#open().then(
      (stream) => callback(null, stream),
      // The types want a stream beside the error; node:http does not look at it.
      (error: Error) => (callback as (error: Error) => void)(error),
    );
    return undefined;
  }
}
