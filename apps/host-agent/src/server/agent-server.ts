import { once } from 'node:events';
import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerResponse,
  type Http2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import type { Interceptor } from '@connectrpc/connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import type { ListenAddress } from '@wrenn/config/environment';
import { readCertificate } from '@wrenn/pki/issue';
import type { LocalPki } from '@wrenn/pki/local-pki';
import { HostService } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { Logger } from 'pino';
import { type FindGuest, openTunnel } from '../tunnel/tunnel.ts';
import { errorInterceptor } from './error-interceptor.ts';
import type { hostService } from './host-service.ts';

/**
 * What one tunnel may have on its way to a guest that does not read. Node grants the window of the whole connection
 * again as soon as bytes arrive, so a slow tunnel never holds up others.
 */
const STREAM_WINDOW_BYTES = 4 * 1024 * 1024;
const SESSION_WINDOW_BYTES = 1024 * 1024 * 1024;
/** Fewer, larger frames: most of the cost of bulk data is paid by the frame. */
const MAX_FRAME_BYTES = 1024 * 1024;
/** Node's own limit, 10 MB, would refuse new tunnels while others wait for slow guests. */
const SESSION_MEMORY_MB = 1024;
const MAX_STREAMS = 10_000;
/** Bodies of verbs are small; bulk data goes through tunnels. */
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;
const TCP_KEEPALIVE_MS = 15_000;
/** A caller that does not read its answer does not hold up a stop for longer. */
const LAST_ANSWERS_MS = 2000;

/** Whom the agent trusts, and what it shows. */
export type AgentPki = Pick<LocalPki, 'caCertPem' | 'agent'>;

export interface AgentServerOptions {
  readonly address: ListenAddress;
  readonly pki: AgentPki;
  readonly service: ReturnType<typeof hostService>;
  readonly findGuest: FindGuest;
  /** Around every verb, closer to it than what turns errors into Connect's. */
  readonly interceptors?: readonly Interceptor[];
  readonly log: Logger;
}

/** The agent's door: HTTP/2 over mutual TLS, open only to holders of a control-plane certificate. */
export class AgentServer {
  readonly #server: Http2SecureServer;
  readonly #sessions = new Set<Http2Session>();
  /** Also those whose handshake has not come to an end. */
  readonly #connections = new Set<Duplex>();
  /** Verbs whose answer is not sent yet. */
  readonly #answering = new Set<Http2ServerResponse>();
  readonly #log: Logger;
  #isStopping = false;

  private constructor({ pki, service, findGuest, interceptors = [], log }: AgentServerOptions) {
    this.#log = log;
    this.#server = createSecureServer({
      ...tlsOptions(pki),
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: 'TLSv1.3',
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: TCP_KEEPALIVE_MS,
      settings: {
        initialWindowSize: STREAM_WINDOW_BYTES,
        maxFrameSize: MAX_FRAME_BYTES,
        maxConcurrentStreams: MAX_STREAMS,
      },
      maxSessionMemory: SESSION_MEMORY_MB,
    });
    this.#server.on('connection', (connection: Duplex) => {
      this.#connections.add(connection);
      connection.once('close', () => this.#connections.delete(connection));
    });
    this.#server.on('session', (session) => this.#admit(session));
    this.#server.on('tlsClientError', (error) => log.info({ err: error }, 'a connection was refused'));
    this.#server.on('connect', ({ authority }, { stream }) => {
      if (this.#isAdmitted(stream)) openTunnel(stream, authority, findGuest);
    });
    const serve = connectNodeAdapter({
      routes: (router) => router.service(HostService, service),
      interceptors: [errorInterceptor(log), ...interceptors],
      readMaxBytes: MAX_MESSAGE_BYTES,
      grpc: false,
      grpcWeb: false,
    });
    this.#server.on('request', (request, response) => {
      if (!this.#isAdmitted(response.stream)) return;
      this.#answering.add(response);
      response.once('close', () => this.#answering.delete(response));
      serve(request, response);
    });
  }

  static async listen(options: AgentServerOptions): Promise<AgentServer> {
    const server = new AgentServer(options);
    const { host, port } = options.address;
    server.#server.listen({ port, ...(host === undefined ? {} : { host }) });
    await once(server.#server, 'listening');
    return server;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Uses renewed certificates for connections from now on. */
  renew(pki: AgentPki): void {
    this.#server.setSecureContext(tlsOptions(pki));
  }

  /** Serves a byte stream like a connection that came in. */
  accept(stream: Duplex): void {
    if (this.#isStopping) stream.destroy();
    else this.#server.emit('connection', stream);
  }

  /** Takes no new connections; those that are there go on. */
  stopListening(): void {
    this.#isStopping = true;
    this.#server.close();
  }

  /** Sends the answers of verbs that have ended, and closes all connections. */
  async [Symbol.asyncDispose](): Promise<void> {
    const sent = Promise.all([...this.#answering].map((response) => once(response, 'close')));
    await Promise.race([sent, sleep(LAST_ANSWERS_MS, undefined, { ref: false })]);
    const closed = this.#server.listening ? once(this.#server, 'close') : undefined;
    this.stopListening();
    const ended = Promise.all(
      [...this.#sessions].map((session) => new Promise((resolve) => session.once('close', resolve))),
    );
    for (const session of this.#sessions) session.destroy();
    await Promise.race([ended, sleep(LAST_ANSWERS_MS, undefined, { ref: false })]);
    // A handshake that goes on would keep the process alive.
    for (const connection of this.#connections) connection.destroy();
    await closed;
  }

  /** A session that is being refused may have sent its first requests already. */
  #isAdmitted({ session }: ServerHttp2Stream): boolean {
    return session !== undefined && this.#sessions.has(session);
  }

  #admit(session: Http2Session): void {
    // A connection that broke meanwhile has no socket any more.
    const socket = session.socket as TLSSocket | undefined;
    const der = socket?.getPeerCertificate().raw;
    if (!der || readCertificate(Uint8Array.from(der)).role !== 'control-plane') {
      this.#log.warn('a connection without a control-plane certificate was refused');
      session.destroy();
      return;
    }
    this.#sessions.add(session);
    session.once('close', () => this.#sessions.delete(session));
    session.on('error', (error) => this.#log.info({ err: error }, 'a connection broke'));
    session.setLocalWindowSize(SESSION_WINDOW_BYTES);
  }
}

function tlsOptions({ caCertPem, agent }: AgentPki) {
  return { ca: caCertPem, cert: agent.certPem, key: agent.keyPem };
}
