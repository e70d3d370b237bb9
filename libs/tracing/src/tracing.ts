import { context, type Tracer, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BatchSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';

/** What is not sent by then, with all attempts, is lost: a collector that is away does not hold up a stop for longer. */
const SEND_TIMEOUT_MS = 3000;

export interface TracingOptions {
  /** OTEL_EXPORTER_OTLP_ENDPOINT, to which /v1/traces is added. Undefined: nothing is recorded. */
  readonly endpoint: string | undefined;
  /** Names the program in traces, such as "wrenn-cp". */
  readonly service: string;
  readonly version: string;
}

/** What one program records of the work that requests cause. */
export interface Tracing extends AsyncDisposable {
  /** Without an endpoint one whose spans are nothing but the caller's, so that they reach whoever is asked next. */
  readonly tracer: Tracer;
}

/** Begins to record. Disposing it sends what is left. */
export function startTracing({ endpoint, service, version }: TracingOptions): Tracing {
  // Of the process; a second call changes nothing.
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  if (endpoint === undefined) {
    // Nobody registers a global provider, so this one records nothing.
    return { tracer: trace.getTracer(service, version), [Symbol.asyncDispose]: async () => undefined };
  }
  const exporter = new OTLPTraceExporter({
    url: `${endpoint.replace(/\/+$/, '')}/v1/traces`,
    timeoutMillis: SEND_TIMEOUT_MS,
  });
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ 'service.name': service, 'service.version': version }),
    spanProcessors: [new BatchSpanProcessor({ exporter })],
  });
  return {
    tracer: provider.getTracer(service, version),
    [Symbol.asyncDispose]: async () => {
      const { promise: late, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, SEND_TIMEOUT_MS);
      // A collector that does not answer is no failure of this program.
      await Promise.race([provider.shutdown().catch(() => undefined), late]);
      clearTimeout(timer);
    },
  };
}
