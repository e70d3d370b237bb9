const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The headers of the trace that whoever runs the command says it is part of, by TRACEPARENT and TRACESTATE. */
export function traceFromEnvironment(
  { TRACEPARENT: parent, TRACESTATE: state }: Readonly<Record<string, string | undefined>> = process.env,
): Record<string, string> {
  if (parent === undefined || !TRACEPARENT.test(parent)) return {};
  return { traceparent: parent, ...(state && /^[\x20-\x7e]+$/.test(state) ? { tracestate: state } : {}) };
}
