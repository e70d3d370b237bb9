import {
  type Attributes,
  type Context,
  context,
  createContextKey,
  ROOT_CONTEXT,
  type Span,
  type SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import { W3CTraceContextPropagator } from '@opentelemetry/core';

const propagator = new W3CTraceContextPropagator();
/** The work that goes on in a context. */
const WORK = createContextKey('wrenn work');

interface Work {
  readonly tracer: Tracer;
  /** What was begun on the way and goes on for itself, such as a connection, is no part of it any more. */
  isOver: boolean;
}

/** A span and the context of what happens within it. */
export interface OpenSpan {
  readonly span: Span;
  readonly context: Context;
  /** @param code of the error that it ended with, where that is a failure */
  end(code?: string): void;
}

export interface SpanOptions {
  readonly kind: SpanKind;
  readonly attributes?: Attributes;
}

/**
 * Begins a span for a request that came in.
 *
 * @param header gives a header of the request by its name in lower case; those of W3C Trace Context name the parent
 */
export function acceptSpan(
  tracer: Tracer,
  name: string,
  options: SpanOptions,
  header: (name: string) => string | undefined,
): OpenSpan {
  const caller = propagator.extract(ROOT_CONTEXT, header, { get: (get, key) => get(key), keys: () => [] });
  return openSpan(tracer, name, options, caller);
}

/** Begins a span within the work that goes on; undefined where none does. */
export function childSpan(name: string, options: SpanOptions): OpenSpan | undefined {
  const active = context.active();
  const work = active.getValue(WORK) as Work | undefined;
  return work && !work.isOver ? openSpan(work.tracer, name, options, active) : undefined;
}

function openSpan(tracer: Tracer, name: string, options: SpanOptions, parent: Context): OpenSpan {
  const span = tracer.startSpan(name, options, parent);
  const work: Work = { tracer, isOver: false };
  return {
    span,
    context: trace.setSpan(parent, span).setValue(WORK, work),
    end: (code) => {
      work.isOver = true;
      if (code !== undefined) {
        span.setAttribute('error.type', code);
        span.setStatus({ code: SpanStatusCode.ERROR, message: code });
      }
      span.end();
    },
  };
}

/** Records something within the active span that is over already. Times in milliseconds since the epoch. */
export function recordSpan(name: string, startMs: number, endMs: number): void {
  const active = context.active();
  const work = active.getValue(WORK) as Work | undefined;
  work?.tracer.startSpan(name, { startTime: startMs }, active).end(endMs);
}

/** The headers that tell whoever is asked next to which span its work belongs. */
export function traceHeaders(within: Context = context.active()): Record<string, string> {
  const headers: Record<string, string> = {};
  if ((within.getValue(WORK) as Work | undefined)?.isOver) return headers;
  propagator.inject(within, headers, {
    set: (carrier, key, value) => {
      carrier[key] = value;
    },
  });
  return headers;
}
