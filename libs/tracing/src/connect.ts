import { Code, ConnectError, type Interceptor } from '@connectrpc/connect';
import { context, SpanKind, type Tracer } from '@opentelemetry/api';
import { acceptSpan, childSpan, type OpenSpan, traceHeaders } from './spans.ts';

/** Tells a server to which span its work belongs, and records the calls that are made within one. */
export const tracedCalls: Interceptor = (next) => async (request) => {
  const opened = childSpan(nameOf(request), { kind: SpanKind.CLIENT });
  for (const [name, value] of Object.entries(traceHeaders(opened?.context))) request.header.set(name, value);
  // A stream counts until it has begun: it may last for days.
  return opened ? within(opened, () => next(request)) : next(request);
};

/** Records the calls that a server answers, each as part of its caller's span. */
export function tracedVerbs(tracer: Tracer): Interceptor {
  return (next) => async (request) => {
    if (request.stream) return next(request);
    const opened = acceptSpan(tracer, nameOf(request), { kind: SpanKind.SERVER }, (name) => {
      return request.header.get(name) ?? undefined;
    });
    return within(opened, () => next(request));
  };
}

async function within<T>(opened: OpenSpan, run: () => Promise<T>): Promise<T> {
  try {
    const result = await context.with(opened.context, run);
    opened.end();
    return result;
  } catch (error) {
    opened.end(codeOf(error));
    throw error;
  }
}

function nameOf({ service, method }: { service: { typeName: string }; method: { name: string } }): string {
  return `${service.typeName}/${method.name}`;
}

function codeOf(error: unknown): string {
  return error instanceof ConnectError ? Code[error.code] : ((error as { code?: string }).code ?? 'internal_error');
}
