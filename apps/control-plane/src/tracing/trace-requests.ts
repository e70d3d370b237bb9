import { context, SpanKind, type Tracer } from '@opentelemetry/api';
import { acceptSpan, type OpenSpan } from '@wrenn/tracing/spans';
import type { FastifyRequest } from 'fastify';
import { toCatalogue } from '../http/error-handler.ts';
import type { Server } from '../http/server.ts';

/** Asked for all the time by machines, and part of nobody's work. */
const UNTRACED = new Set(['/health', '/ready', '/metrics']);

/**
 * Records every request as part of its client's trace, or as one of its own, and makes its span that of everything
 * which is done for it. Before any route.
 */
export function traceRequests(app: Server, tracer: Tracer): void {
  const open = new WeakMap<FastifyRequest, OpenSpan>();
  const codes = new WeakMap<FastifyRequest, string>();
  app.addHook('onRequest', (request, _reply, done) => {
    const { url = 'unknown' } = request.routeOptions;
    if (UNTRACED.has(url)) return done();
    const attributes = {
      'http.request.method': request.method,
      'http.route': url,
      'url.path': request.url.split('?')[0] ?? '',
      'wrenn.request_id': request.id,
    };
    const options = { kind: SpanKind.SERVER, attributes };
    const opened = acceptSpan(tracer, `${request.method} ${url}`, options, (name) => {
      const value = request.headers[name];
      return Array.isArray(value) ? value.join(',') : value;
    });
    open.set(request, opened);
    context.with(opened.context, done);
  });
  // What reads a body calls back from the socket, outside of what was begun above.
  app.addHook('preValidation', (request, _reply, done) => {
    const opened = open.get(request);
    if (opened) context.with(opened.context, done);
    else done();
  });
  app.addHook('onError', async (request, _reply, error) => {
    codes.set(request, toCatalogue(error, request).code);
  });
  app.addHook('onResponse', async (request, reply) => {
    const opened = open.get(request);
    if (opened) end(opened, reply.statusCode, codes.get(request));
  });
}

function end(opened: OpenSpan, status: number, code: string | undefined): void {
  const { span } = opened;
  span.setAttribute('http.response.status_code', status);
  // A client's mistake is no failure of the server.
  if (status >= 500) opened.end(code ?? String(status));
  else {
    if (code !== undefined) span.setAttribute('error.type', code);
    opened.end();
  }
}
