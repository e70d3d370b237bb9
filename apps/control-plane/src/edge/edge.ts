import {
  type ClientRequest,
  type IncomingMessage,
  request as openRequest,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Duplex } from 'node:stream';
import proxyAddr from '@fastify/proxy-addr';
import { WrennError } from '@wrenn/protocol/errors';
import { apiKeyBody, newId } from '@wrenn/protocol/ids';
import { toRestError } from '@wrenn/protocol/rest/error';
import type { Logger } from 'pino';
import type { Actor } from '../access/actor.ts';
import { authorize } from '../access/authorize.ts';
import type { KeyHolder } from '../access/principal.ts';
import { findKeyHolder } from '../api-keys/key-holder.ts';
import { PortVisits } from '../audit/port-visits.ts';
import { requireRunning } from '../capsules/capsules.ts';
import type { Capsule } from '../database/schema.ts';
import { explainBreak, requireAwake } from '../guest/awake.ts';
import { PortClosedError } from '../hosts/tunnel.ts';
import { endConnectionIfClosing } from '../http/close-server.ts';
import { toCatalogue } from '../http/error-handler.ts';
import type { RouteDeps } from '../http/route-deps.ts';
import { endToEnd, readPlatformKey, requestHeaders } from './headers.ts';
import { type EdgeTarget, readTarget } from './target.ts';

/** Of the guest agent, which has a protocol and credentials of its own. */
const ENVD_PORT = 49_983;
const MAX_PORT = 65_535;

/**
 * Serves the ports of capsules: requests that name one go to that port of that capsule's guest, as they come and with
 * the pace of whoever is slower; all others are for the server itself. A capsule that sleeps is woken where it may be.
 */
export class Edge {
  readonly #deps: RouteDeps;
  readonly #log: Logger;
  readonly #visits: PortVisits;
  readonly #trust: (address: string, hop: number) => boolean;
  /** Connections that have become something else than HTTP; the server does not know of their end. */
  readonly #upgraded = new Set<Duplex>();
  #isClosed = false;

  constructor(deps: RouteDeps, log: Logger) {
    this.#deps = deps;
    this.#log = log;
    this.#visits = new PortVisits(deps.audit);
    this.#trust = proxyAddr.compile([...deps.settings.trustedProxies]);
  }

  /** Takes the requests for capsules before any listener of the server sees them. */
  intercept(server: Server): void {
    const emit = server.emit.bind(server) as (event: string, ...args: unknown[]) => boolean;
    server.emit = (event: string, ...args: unknown[]): boolean => {
      if (event !== 'request' && event !== 'upgrade') return emit(event, ...args);
      const request = args[0] as IncomingMessage;
      const target = readTarget(request.headers);
      if (!target) return emit(event, ...args);
      if (event === 'request') {
        const response = args[1] as ServerResponse;
        endConnectionIfClosing(server, request, response);
        void this.#serve(target, request, response);
      } else void this.#upgrade(target, request, args[1] as Duplex, args[2] as Buffer);
      return true;
    };
  }

  /** Ends what the server would wait for for ever. */
  close(): void {
    this.#isClosed = true;
    for (const socket of this.#upgraded) socket.destroy();
  }

  async #serve(target: EdgeTarget, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.once('close', () => {
      gone.abort(new Error('the client is gone'));
      this.#deps.connections.forget({ raw: request });
    });
    // Without a listener a broken connection would end this program; the response closes then.
    request.on('error', ignore);
    response.on('error', ignore);
    try {
      const capsule = await this.#admit(target, request, gone.signal);
      using _use = this.#deps.activity.begin(capsule.id, {
        kind: 'stream',
        detail: `a request to port ${target.port}`,
      });
      const outgoing = await this.#open(target, capsule, request, false, gone.signal);
      response.once('close', () => outgoing.destroy());
      const touch = () => this.#deps.activity.touch(capsule.id);
      request.on('data', touch);
      // Not only with the first byte of the body, for which the guest's answer may be awaited.
      outgoing.flushHeaders();
      request.pipe(outgoing);
      const answer = await this.#answerOf(outgoing, capsule);
      response.sendDate = false;
      response.writeHead(answer.statusCode ?? 502, answer.statusMessage ?? '', endToEnd(answer).flat());
      response.flushHeaders();
      answer.on('data', touch);
      // Whatever is left out must look left out.
      answer.once('close', () => {
        if (!answer.complete) response.destroy();
      });
      answer.on('error', ignore);
      answer.pipe(response);
    } catch (error) {
      request.unpipe();
      request.resume();
      if (gone.signal.aborted) return;
      if (response.headersSent) response.destroy();
      else this.#refuse(error, request, (status, headers, body) => response.writeHead(status, headers).end(body));
    }
  }

  async #upgrade(target: EdgeTarget, request: IncomingMessage, client: Duplex, head: Buffer): Promise<void> {
    const gone = new AbortController();
    this.#upgraded.add(client);
    client.once('close', () => {
      this.#upgraded.delete(client);
      gone.abort(new Error('the client is gone'));
    });
    client.on('error', ignore);
    try {
      const capsule = await this.#admit(target, request, gone.signal);
      const outgoing = await this.#open(target, capsule, request, true, gone.signal);
      client.once('close', () => outgoing.destroy());
      outgoing.end();
      const touch = () => this.#deps.activity.touch(capsule.id);
      const { answer, upgraded } = await this.#upgradeOf(outgoing, capsule);
      if (!upgraded) {
        client.write(toHead(answer, ['Connection', 'close']));
        answer.on('error', ignore).on('data', touch).pipe(client);
        return;
      }
      client.write(toHead(answer, ['Connection', 'Upgrade', 'Upgrade', answer.headers.upgrade ?? '']));
      client.write(upgraded.head);
      upgraded.socket.write(head);
      join(client, upgraded.socket, touch);
    } catch (error) {
      if (gone.signal.aborted) return;
      this.#refuse(error, request, (status, headers, body) => {
        const lines = Object.entries({ ...headers, connection: 'close' }).map(([name, value]) => `${name}: ${value}`);
        client.end(`HTTP/1.1 ${status} Refused\r\n${lines.join('\r\n')}\r\n\r\n${body}`);
      });
    }
  }

  /** The capsule, awake, when whoever asks may use that port of it. */
  async #admit({ capsuleId, port }: EdgeTarget, request: IncomingMessage, signal: AbortSignal): Promise<Capsule> {
    if (this.#isClosed) throw new WrennError('shutting_down');
    const key = readPlatformKey(request);
    if (key === undefined) throw new WrennError('unauthorized');
    const heardBefore = this.#deps.connections.heard;
    const holder = await findKeyHolder(this.#deps.db, apiKeyBody(key.trim()) ?? '');
    this.#deps.keyUse.note(holder.id);
    if (this.#deps.audit.isFull) throw new WrennError('database_unavailable');
    const { id, name, team } = holder;
    const actor: Actor = { type: 'api_key', id, name, address: proxyAddr(request, this.#trust) };
    const visit = { teamId: team.id, actor, capsuleId, port };
    try {
      authorize(holder, 'capsule.access');
      this.#endWithAccess(request, key, holder, heardBefore);
      requireOpenPort(port);
      const caller = { teamId: team.id, actor: id, askedBy: actor };
      const capsule = await requireAwake(this.#deps.capsules, caller, capsuleId, 'wake', signal);
      this.#visits.note(visit);
      return capsule;
    } catch (error) {
      if (!signal.aborted) this.#visits.note(visit, error);
      throw error;
    }
  }

  /** Ends the connection when its key is good for it no more. */
  #endWithAccess(raw: IncomingMessage, key: string, { id, userId, team }: KeyHolder, heardBefore: number): void {
    const owner = { keyId: id, userId, teamId: team.id, sessionId: undefined };
    const recheck = async () =>
      authorize(await findKeyHolder(this.#deps.db, apiKeyBody(key.trim()) ?? ''), 'capsule.access');
    this.#deps.connections.add({ raw }, owner, recheck, heardBefore);
  }

  /** Begins the same request to the guest. A connection of its own for each: none that is kept could be stale. */
  async #open(
    { port }: EdgeTarget,
    capsule: Capsule,
    request: IncomingMessage,
    isUpgrade: boolean,
    signal: AbortSignal,
  ): Promise<ClientRequest> {
    const tunnel = await this.#tunnel(capsule, port);
    const { method = 'GET', url = '/', headers } = request;
    const more = isUpgrade
      ? ['Connection', 'Upgrade', 'Upgrade', headers.upgrade ?? '']
      : ['Connection', 'close', ...(headers['transfer-encoding'] ? ['Transfer-Encoding', 'chunked'] : [])];
    if (signal.aborted) {
      tunnel.destroy();
      signal.throwIfAborted();
    }
    return openRequest({
      createConnection: () => tunnel,
      method,
      path: url,
      headers: [...requestHeaders(request).flat(), ...more],
      setHost: false,
    }).on('error', ignore);
  }

  async #tunnel(capsule: Capsule, port: number): Promise<Duplex> {
    try {
      return await this.#deps.hostOf(capsule.hostId).tunnel(capsule.id, port);
    } catch (error) {
      if (error instanceof PortClosedError) throw new WrennError('port_closed', { id: capsule.id, port });
      const why = await explainBreak(this.#deps.db, capsule, error);
      // It may have ended at this moment, and its state then says more than the connection.
      if (why === error) await requireRunning(this.#deps.db, capsule.teamId, capsule.id);
      throw why;
    }
  }

  async #answerOf(outgoing: ClientRequest, capsule: Capsule): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      outgoing.once('response', resolve);
      this.#onFailure(outgoing, capsule, reject);
    });
  }

  async #upgradeOf(
    outgoing: ClientRequest,
    capsule: Capsule,
  ): Promise<{ answer: IncomingMessage; upgraded?: { socket: Duplex; head: Buffer } }> {
    return new Promise((resolve, reject) => {
      outgoing.once('response', (answer) => resolve({ answer }));
      outgoing.once('upgrade', (answer, socket, head) => resolve({ answer, upgraded: { socket, head } }));
      this.#onFailure(outgoing, capsule, reject);
    });
  }

  #onFailure(outgoing: ClientRequest, capsule: Capsule, reject: (error: unknown) => void): void {
    let cause: Error | undefined;
    outgoing.once('error', (error) => {
      cause = error;
    });
    outgoing.once('close', () => {
      const problem = 'the program on that port closed the connection before it answered';
      const error = new WrennError('guest_unreachable', { id: capsule.id, problem }, { cause });
      explainBreak(this.#deps.db, capsule, error).then(reject, reject);
    });
  }

  #refuse(
    error: unknown,
    request: IncomingMessage,
    send: (status: number, headers: Record<string, string>, body: string) => void,
  ): void {
    const known = toCatalogue(error);
    const requestId = newId('req');
    const path = request.url?.split('?')[0];
    this.#log.info(
      { err: error, code: known.code, requestId, host: request.headers.host, path },
      'refused at the edge',
    );
    const body = JSON.stringify({ error: toRestError(known, requestId) });
    const length = String(Buffer.byteLength(body));
    send(known.http, { 'content-type': 'application/json', 'content-length': length, 'x-request-id': requestId }, body);
  }
}

function requireOpenPort(port: number): void {
  if (!(port >= 1 && port <= MAX_PORT)) {
    throw new WrennError('invalid_request', { problem: `a port is a number between 1 and ${MAX_PORT}` });
  }
  if (port === ENVD_PORT) throw new WrennError('forbidden');
}

/** The head of an answer, written by hand where there is no response object. */
function toHead(answer: IncomingMessage, more: readonly string[]): string {
  const lines = [...endToEnd(answer)].map(([name, value]) => `${name}: ${value}`);
  for (let i = 0; i + 1 < more.length; i += 2) lines.push(`${more[i]}: ${more[i + 1]}`);
  return `HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}\r\n${lines.join('\r\n')}\r\n\r\n`;
}

/** Joins two sides of an upgraded connection; what ends or breaks on one does on the other. */
function join(client: Duplex, guest: Duplex, onBytes: () => void): void {
  guest.on('error', ignore);
  client.on('data', onBytes).pipe(guest);
  guest.on('data', onBytes).pipe(client);
  client.once('close', () => guest.destroy());
  guest.once('close', () => client.destroy());
}

/** What follows is handled where the stream closes. */
function ignore(): void {}
