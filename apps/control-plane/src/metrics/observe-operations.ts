import { SpanKind, context as traceContext } from '@opentelemetry/api';
import { childSpan } from '@wrenn/tracing/spans';
import { inArray } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { capsules, type Operation, type OperationKind } from '../database/schema.ts';
import { isRunAgain, type OperationHandler, type OperationHandlers } from '../operations/operation-runner.ts';
import type { Metrics } from './metrics.ts';
import { codeOf } from './observe.ts';

/** The same handlers, each counted when it ends: with its outcome, its time, and the timelines of what it started. */
export function observeOperations(handlers: OperationHandlers, metrics: Metrics): OperationHandlers {
  const kinds = Object.keys(handlers) as OperationKind[];
  return Object.fromEntries(
    kinds.map((kind) => [kind, observedHandler(kind, handlers[kind], metrics)]),
  ) as unknown as OperationHandlers;
}

function observedHandler(kind: OperationKind, handle: OperationHandler, metrics: Metrics): OperationHandler {
  return async (operation, context) => {
    const started = performance.now();
    const span = childSpan(`operation ${kind}`, {
      kind: SpanKind.INTERNAL,
      attributes: { 'wrenn.operation_id': operation.id },
    });
    try {
      const work = () => handle(operation, context);
      const outcome = await (span ? traceContext.with(span.context, work) : work());
      span?.end();
      return {
        ...outcome,
        // Where its end is written down: an operation that the database loses here is run, and counted, once more.
        record: async (tx) => {
          await outcome.record?.(tx);
          for (const trace of await readTraces(tx, operation)) metrics.recordTrace(trace);
          metrics.recordOperation(kind, 'ok', performance.now() - started);
        },
      };
    } catch (error) {
      span?.end(codeOf(error));
      if (!isRunAgain(error, context.signal)) metrics.recordOperation(kind, codeOf(error), performance.now() - started);
      throw error;
    }
  };
}

/** The timelines of the capsules that an operation started. */
async function readTraces(db: Db, { kind, capsuleId, args }: Operation) {
  const children: unknown = args.children;
  const ids =
    kind === 'capsule.create' || kind === 'capsule.resume'
      ? [capsuleId]
      : kind === 'capsule.fork' && Array.isArray(children)
        ? children.map(String)
        : [];
  if (ids.length === 0) return [];
  const rows = await db.select({ trace: capsules.trace }).from(capsules).where(inArray(capsules.id, ids));
  return rows.flatMap(({ trace }) => (trace !== null && kind === `capsule.${trace.kind}` ? [trace] : []));
}
