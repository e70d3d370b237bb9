import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ListenAddress } from '@wrenn/config/environment';
import type { Logger } from 'pino';
import { AGENT_VERSION } from '../version.ts';
import type { AgentMetrics } from './agent-metrics.ts';

/** What was found of one thing that verbs need. */
export interface Check {
  readonly ok: boolean;
  /** For a person. */
  readonly detail: string;
}

export interface WatchServerOptions {
  readonly address: ListenAddress;
  readonly metrics: Pick<AgentMetrics, 'render'>;
  readonly checks: () => Promise<Readonly<Record<string, Check>>>;
  readonly log: Logger;
}

/** Tells whoever watches this agent how it is: /health, /ready and /metrics. Open to everybody who reaches it. */
export class WatchServer implements AsyncDisposable {
  readonly #server: ReturnType<typeof createServer>;

  private constructor(options: WatchServerOptions) {
    this.#server = createServer({ headersTimeout: 10_000, requestTimeout: 10_000 }, (request, response) => {
      answer(options, request, response).catch((err: unknown) => {
        options.log.warn({ err, path: request.url }, 'a question about this agent could not be answered');
        if (!response.headersSent) response.writeHead(500);
        response.end();
      });
    });
  }

  /** @throws Error when something else listens there */
  static async listen(options: WatchServerOptions): Promise<WatchServer> {
    const watch = new WatchServer(options);
    const { host, port } = options.address;
    watch.#server.listen({ port, ...(host === undefined ? {} : { host }) });
    await once(watch.#server, 'listening');
    return watch;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}

async function answer(
  { metrics, checks }: WatchServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const path = request.url?.split('?')[0];
  if (request.method !== 'GET' && request.method !== 'HEAD') send(response, 405, { error: 'only GET' });
  else if (path === '/health') send(response, 200, { status: 'ok', version: AGENT_VERSION });
  else if (path === '/ready') {
    const found = await checks();
    const ready = Object.values(found).every(({ ok }) => ok);
    send(response, ready ? 200 : 503, { ready, checks: found });
  } else if (path === '/metrics') {
    const { contentType, text } = await metrics.render();
    response.writeHead(200, { 'content-type': contentType }).end(text);
  } else send(response, 404, { error: 'there are /health, /ready and /metrics' });
}

function send(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}
