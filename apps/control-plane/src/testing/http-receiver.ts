import { once } from 'node:events';
import http, {
  type IncomingHttpHeaders,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http';
import https from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import { until } from '@wrenn/testing/until';

export interface ReceivedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  /** When it was whole. */
  readonly at: Date;
}

/** Answers a request; by default 204. */
export type Responder = (request: ReceivedRequest, response: ServerResponse) => void;

const accept: Responder = (_request, response) => {
  response.writeHead(204).end();
};

/** A web server on 127.0.0.1 that keeps what it is sent. */
export class HttpReceiver implements AsyncDisposable {
  readonly received: ReceivedRequest[] = [];
  respond: Responder;
  readonly #server: Server & { closeAllConnections(): void };
  readonly #scheme: string;

  private constructor(respond: Responder, tls: https.ServerOptions | undefined) {
    this.respond = respond;
    const listener: RequestListener = (request, response) => {
      this.#take(request, response).catch(() => response.destroy());
    };
    this.#server = tls ? https.createServer(tls, listener) : http.createServer(listener);
    this.#scheme = tls ? 'https' : 'http';
  }

  static async start(respond: Responder = accept, tls?: https.ServerOptions): Promise<HttpReceiver> {
    const receiver = new HttpReceiver(respond, tls);
    receiver.#server.listen(0, '127.0.0.1');
    await once(receiver.#server, 'listening');
    return receiver;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `${this.#scheme}://127.0.0.1:${this.port}`;
  }

  /** Waits for the request of that number, from 0 on. */
  async request(number: number): Promise<ReceivedRequest> {
    return until(`request ${number} comes`, () => this.received[number]);
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const { method = '', url: path = '', headers } = request;
    const taken = { method, path, headers, body: Buffer.concat(chunks).toString('utf8'), at: new Date() };
    this.received.push(taken);
    this.respond(taken, response);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
