import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionRequestOptions,
  connect,
  constants,
  type OutgoingHttpHeaders,
} from 'node:http2';
import type { Duplex } from 'node:stream';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { readCertificate } from '@wrenn/pki/issue';
import { WrennError } from '@wrenn/protocol/errors';
import type { Logger } from 'pino';
import { readFromStart } from './response-reader.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const PING_INTERVAL_MS = 5000;
const PING_TIMEOUT_MS = 10_000;
/** What one stream may have on its way before its reader took it; a transfer needs bandwidth times delay. */
const STREAM_WINDOW_BYTES = 1024 * 1024;
/** The same for all streams of a session together, so that a slow one does not hold the others. */
const SESSION_WINDOW_BYTES = 64 * 1024 * 1024;
/** Fewer, larger frames: most of the cost of bulk data is paid by the frame. */
const MAX_FRAME_BYTES = 256 * 1024;
/** Node's own limit, 10 MB, would refuse new streams while others wait for slow readers. */
const SESSION_MEMORY_MB = 1024;

/** What this control plane proves itself with, and whom it trusts. */
export interface HostTrust {
  readonly caCertPem: string;
  readonly certPem: string;
  readonly keyPem: string;
}

/** Where a host agent is, and who it must be. */
export interface HostEndpoint {
  /** `https://name:port`; of a host that is reached over a stream only its name. */
  readonly address: string;
  /** Common name of its certificate: then that name counts, and not the one of the address. */
  readonly commonName?: string;
  /** Gives a byte stream to the agent, for hosts that no address leads to. */
  readonly openStream?: (signal: AbortSignal) => Promise<Duplex>;
}

/**
 * The one HTTP/2 connection to a host agent. Made when it is first needed and again after it broke. It has the shape
 * of connect-node's session manager, so that calls and tunnels share it.
 */
export class HostSession implements AsyncDisposable {
  readonly authority: string;
  readonly #endpoint: HostEndpoint;
  readonly #trust: HostTrust;
  readonly #log: Logger;
  #opening: Promise<ClientHttp2Session> | undefined;
  #session: ClientHttp2Session | undefined;
  /** Of the last ping that was sent or answered, or of the end of a connection that was well until then. */
  #heardMs: number | undefined;
  #isAsking = false;
  readonly #closing = new AbortController();

  constructor(endpoint: HostEndpoint, trust: HostTrust, log: Logger) {
    this.authority = new URL(endpoint.address).origin;
    this.#endpoint = endpoint;
    this.#trust = trust;
    this.#log = log;
  }

  /** When the host was last known to be there, by performance.now(); undefined: never. */
  get heardMs(): number | undefined {
    const session = this.#session;
    const isWell = session !== undefined && !session.destroyed && !session.closed && !this.#isAsking;
    return isWell ? performance.now() : this.#heardMs;
  }

  /** @throws WrennError `host_unavailable` */
  async request(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    options: Omit<ClientSessionRequestOptions, 'signal'>,
  ): Promise<ClientHttp2Stream> {
    const session = await this.#open();
    return readFromStart(session.request({ ...headers, ':method': method, ':path': path }, options));
  }

  /** Part of connect-node's interface; pings are sent whether or not bytes come. */
  notifyResponseByteRead(): void {}

  /** A CONNECT stream. Its headers are sent; whether the other side takes it, its `response` event says. */
  async connectTo(target: string): Promise<ClientHttp2Stream> {
    const session = await this.#open();
    return session.request({ ':method': 'CONNECT', ':authority': target }, { endStream: false });
  }

  async #open(): Promise<ClientHttp2Session> {
    if (this.#closing.signal.aborted) throw new WrennError('shutting_down');
    if (this.#session && !this.#session.destroyed && !this.#session.closed) return this.#session;
    this.#opening ??= this.#connect().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #connect(): Promise<ClientHttp2Session> {
    const { commonName, openStream } = this.#endpoint;
    const signal = AbortSignal.any([AbortSignal.timeout(CONNECT_TIMEOUT_MS), this.#closing.signal]);
    const stream = await openStream?.(signal);
    const tls = this.#tlsOptions();
    const { hostname } = new URL(this.authority);
    const session = connect(this.authority, {
      ...tls,
      ...(stream && {
        createConnection: () => connectTls({ ...tls, socket: stream, servername: hostname, ALPNProtocols: ['h2'] }),
      }),
      settings: { initialWindowSize: STREAM_WINDOW_BYTES, maxFrameSize: MAX_FRAME_BYTES, enablePush: false },
      maxSessionMemory: SESSION_MEMORY_MB,
    });
    session.on('error', (err) => this.#log.debug({ err }, 'the connection to the host failed'));
    try {
      await once(session, 'connect', { signal });
      requireAgent(session.socket as TLSSocket, commonName);
    } catch (cause) {
      session.destroy();
      stream?.destroy();
      throw new WrennError('host_unavailable', {}, { cause });
    }
    session.setLocalWindowSize(SESSION_WINDOW_BYTES);
    this.#keepAlive(session);
    // Requests are bounded by what callers do, not by the listener warning of one shared emitter.
    session.setMaxListeners(0);
    if (this.#closing.signal.aborted) {
      session.destroy();
      throw new WrennError('shutting_down');
    }
    session.once('close', () => stream?.destroy());
    this.#session = session;
    return session;
  }

  /** Destroys a session whose other side went silent, and with it all its streams: `host_unavailable` is their error. */
  #keepAlive(session: ClientHttp2Session): void {
    let silence: NodeJS.Timeout | undefined;
    const hear = (isAsking: boolean) => {
      this.#heardMs = performance.now();
      this.#isAsking = isAsking;
    };
    hear(false);
    const interval = setInterval(() => {
      if (silence || session.destroyed) return;
      silence = setTimeout(() => {
        // An answer that came while this program stood still is read first.
        setImmediate(() => {
          if (!silence) return;
          const cause = new Error('the host did not answer a ping');
          session.destroy(new WrennError('host_unavailable', {}, { cause }));
        });
      }, PING_TIMEOUT_MS);
      hear(true);
      session.ping((error) => {
        if (!error) hear(false);
        clearTimeout(silence);
        silence = undefined;
      });
    }, PING_INTERVAL_MS);
    interval.unref();
    session.once('close', () => {
      if (!this.#isAsking) hear(false);
      this.#isAsking = false;
      clearInterval(interval);
      clearTimeout(silence);
    });
  }

  #tlsOptions() {
    const { caCertPem, certPem, keyPem } = this.#trust;
    return {
      ...{ ca: caCertPem, cert: certPem, key: keyPem, minVersion: 'TLSv1.3' as const },
      // Who it is, requireAgent looks at.
      ...(this.#endpoint.commonName === undefined ? {} : { checkServerIdentity: () => undefined }),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new WrennError('shutting_down'));
    await this.#opening?.catch(() => undefined);
    const session = this.#session;
    if (!session || session.destroyed) return;
    const closed = once(session, 'close');
    session.destroy(undefined, constants.NGHTTP2_CANCEL);
    await closed;
  }
}

/** The authority signs control planes and every host; only the agent of this one may answer. */
function requireAgent(socket: TLSSocket, commonName: string | undefined): void {
  const { raw } = socket.getPeerCertificate();
  const { role, name } = readCertificate(new Uint8Array(raw));
  if (role !== 'agent') throw new Error(`the host's certificate has the role ${role ?? 'none'}, not agent`);
  if (commonName !== undefined && name !== commonName) {
    throw new Error(`the agent that answers is that of ${name}, not of ${commonName}`);
  }
}
