import type { Interceptor } from '@connectrpc/connect';
import type { TraceStep } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { recordSpan } from '@wrenn/tracing/spans';

/** Records the steps that a verb tells of its work, each as a span within the verb's. */
export const traceSteps: Interceptor = (next) => async (request) => {
  const beganMs = Date.now();
  const answer = await next(request);
  if (answer.stream) return answer;
  const message = answer.message as { trace?: TraceStep[]; vm?: { trace?: TraceStep[] } };
  // What another request has done before is of the past.
  const limitMs = Date.now() - beganMs + 1;
  const steps = message.trace ?? message.vm?.trace ?? [];
  for (const { name, offsetMs, durationMs } of steps) {
    if (offsetMs + durationMs > limitMs) continue;
    recordSpan(name, beganMs + offsetMs, beganMs + offsetMs + durationMs);
  }
  return answer;
};
