import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface ProxiedRequest {
  readonly path: string;
  // Requests are of many shapes, and a test that reads a wrong one fails.
  // biome-ignore lint/suspicious/noExplicitAny: see above
  body: any;
}

export interface ProxiedAnswer {
  status: number;
  text: string;
  headers?: Record<string, string>;
}

/**
 * What becomes of a request: `pass` unless told; `cut` never arrives; `lose` arrives, and its answer does not; an answer
 * of the proxy itself; or a change of the true one.
 */
export type Fate = 'pass' | 'cut' | 'lose' | ProxiedAnswer | ((answer: ProxiedAnswer) => ProxiedAnswer);

/** Stands between an agent and its control plane. */
export class FaultyProxy implements AsyncDisposable {
  readonly requests: ProxiedRequest[] = [];
  /** May change the body. */
  decide: (request: ProxiedRequest) => Fate = () => 'pass';
  readonly #server: Server;
  readonly #target: () => string;

  private constructor(target: () => string) {
    this.#target = target;
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch(() => response.destroy());
    });
  }

  /** @param target the base URL of the control plane, asked for at each request */
  static async start(target: () => string): Promise<FaultyProxy> {
    const proxy = new FaultyProxy(target);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Paths of the requests that ended with this. */
  count(suffix: string): number {
    return this.requests.filter(({ path }) => path.endsWith(suffix)).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const request: ProxiedRequest = { path: incoming.url ?? '', body: JSON.parse(Buffer.concat(chunks).toString()) };
    this.requests.push(request);
    const fate = this.decide(request);
    if (fate === 'cut') return void response.destroy();
    if (typeof fate === 'object') return send(response, fate);
    const answer = await this.#forward(incoming, request);
    if (fate === 'lose') return void response.destroy();
    send(response, typeof fate === 'function' ? fate(answer) : answer);
  }

  async #forward({ headers }: IncomingMessage, { path, body }: ProxiedRequest): Promise<ProxiedAnswer> {
    const token = headers['x-host-token'];
    const answer = await fetch(`${this.#target()}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(typeof token === 'string' ? { 'x-host-token': token } : {}) },
      body: JSON.stringify(body),
    });
    return { status: answer.status, text: await answer.text() };
  }
}

function send(response: ServerResponse, { status, text, headers = {} }: ProxiedAnswer): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(text);
}
