import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionRequestOptions,
  connect,
  constants,
  type OutgoingHttpHeaders,
} from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { readCertificate } from '@wrenn/pki/issue';
import { WrennError } from '@wrenn/protocol/errors';
import type { Logger } from 'pino';

const CONNECT_TIMEOUT_MS = 10_000;
const PING_INTERVAL_MS = 10_000;
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

/**
 * The one HTTP/2 connection to a host agent. Made when it is first needed and again after it broke. It has the shape
 * of connect-node's session manager, so that calls and tunnels share it.
 */
export class HostSession implements AsyncDisposable {
  readonly authority: string;
  readonly #trust: HostTrust;
  readonly #log: Logger;
  #opening: Promise<ClientHttp2Session> | undefined;
  #session: ClientHttp2Session | undefined;
  #closed = false;

  constructor(address: string, trust: HostTrust, log: Logger) {
    this.authority = new URL(address).origin;
    this.#trust = trust;
    this.#log = log;
  }

  /** @throws WrennError `host_unavailable` */
  async request(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    options: Omit<ClientSessionRequestOptions, 'signal'>,
  ): Promise<ClientHttp2Stream> {
    const session = await this.#open();
    return session.request({ ...headers, ':method': method, ':path': path }, options);
  }

  /** Part of connect-node's interface; pings are sent whether or not bytes come. */
  notifyResponseByteRead(): void {}

  /** A CONNECT stream. Its headers are sent; whether the other side takes it, its `response` event says. */
  async connectTo(target: string): Promise<ClientHttp2Stream> {
    const session = await this.#open();
    return session.request({ ':method': 'CONNECT', ':authority': target }, { endStream: false });
  }

  async #open(): Promise<ClientHttp2Session> {
    if (this.#closed) throw new WrennError('shutting_down');
    if (this.#session && !this.#session.destroyed && !this.#session.closed) return this.#session;
    this.#opening ??= this.#connect().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #connect(): Promise<ClientHttp2Session> {
    const { caCertPem, certPem, keyPem } = this.#trust;
    const session = connect(this.authority, {
      ca: caCertPem,
      cert: certPem,
      key: keyPem,
      minVersion: 'TLSv1.3',
      settings: { initialWindowSize: STREAM_WINDOW_BYTES, maxFrameSize: MAX_FRAME_BYTES, enablePush: false },
      maxSessionMemory: SESSION_MEMORY_MB,
    });
    session.on('error', (err) => this.#log.debug({ err }, 'the connection to the host failed'));
    try {
      await once(session, 'connect', { signal: AbortSignal.timeout(CONNECT_TIMEOUT_MS) });
      requireAgent(session.socket as TLSSocket);
    } catch (cause) {
      session.destroy();
      throw new WrennError('host_unavailable', {}, { cause });
    }
    session.setLocalWindowSize(SESSION_WINDOW_BYTES);
    keepAlive(session);
    // Requests are bounded by what callers do, not by the listener warning of one shared emitter.
    session.setMaxListeners(0);
    if (this.#closed) {
      session.destroy();
      throw new WrennError('shutting_down');
    }
    this.#session = session;
    return session;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#opening?.catch(() => undefined);
    const session = this.#session;
    if (!session || session.destroyed) return;
    const closed = once(session, 'close');
    session.destroy(undefined, constants.NGHTTP2_CANCEL);
    await closed;
  }
}

/** The authority signs control planes too; only an agent may answer as one. */
function requireAgent(socket: TLSSocket): void {
  const { raw } = socket.getPeerCertificate();
  const { role } = readCertificate(new Uint8Array(raw));
  if (role !== 'agent') throw new Error(`the host's certificate has the role ${role ?? 'none'}, not agent`);
}

/** Destroys a session whose other side went silent, and with it all its streams. */
function keepAlive(session: ClientHttp2Session): void {
  let silence: NodeJS.Timeout | undefined;
  const interval = setInterval(() => {
    if (silence || session.destroyed) return;
    silence = setTimeout(() => session.destroy(new Error('the host did not answer a ping')), PING_TIMEOUT_MS);
    session.ping(() => {
      clearTimeout(silence);
      silence = undefined;
    });
  }, PING_INTERVAL_MS);
  interval.unref();
  session.once('close', () => {
    clearInterval(interval);
    clearTimeout(silence);
  });
}
