import { Code, ConnectError, type HandlerContext } from '@connectrpc/connect';
import { WrennError } from '@wrenn/protocol/errors';
import type { ProcessEvent } from '@wrenn/protocol/gen/process/process_pb';
import { keepaliveIntervalMs } from '../keepalive.ts';
import type { ManagedProcess } from './managed-process.ts';
import { dataEvent, endEvent, keepaliveEvent, startEvent } from './process-events.ts';

/**
 * The events of one process for one client: where the stream starts, its output, and its end exactly once. The client's
 * going away ends the stream and nothing else.
 *
 * @param offset first byte to send, if it is still kept
 * @param deadline `process`: the request's deadline is the process's own, and the stream lives on to tell how it ended;
 * `stream`: it ends the stream only
 */
export async function* streamProcess(
  process: ManagedProcess,
  offset: number,
  context: HandlerContext,
  deadline: 'process' | 'stream',
): AsyncGenerator<ProcessEvent> {
  const reader = process.attach(offset);
  // While a chunk waits for a slow client this generator stands still; only the signal then tells that it has gone.
  const onAbort = () => {
    if (!(deadline === 'process' && isDeadline(context.signal))) reader.close();
  };
  context.signal.addEventListener('abort', onAbort, { once: true });
  const keepaliveMs = keepaliveIntervalMs(context.requestHeader);
  try {
    yield startEvent(process.pid, reader.start);
    for (;;) {
      const next = reader.next();
      if (next === 'end') break;
      if (next !== undefined) {
        yield dataEvent(next);
        continue;
      }
      const deadlinePassed = deadline === 'process' && isDeadline(context.signal);
      const outcome = await reader.changed(keepaliveMs, deadlinePassed ? undefined : context.signal);
      if (outcome === 'timeout') yield keepaliveEvent();
      if (outcome === 'aborted' && !(deadline === 'process' && isDeadline(context.signal))) {
        throw ConnectError.from(context.signal.reason, Code.Canceled);
      }
    }
    const end = await process.ended;
    yield endEvent(end);
    if (deadline === 'process' && end.deadlineMs !== undefined) {
      throw new WrennError('deadline_exceeded', { what: 'The process', timeout_ms: end.deadlineMs });
    }
  } finally {
    context.signal.removeEventListener('abort', onAbort);
    reader.close();
  }
}

function isDeadline(signal: AbortSignal): boolean {
  return signal.aborted && ConnectError.from(signal.reason).code === Code.DeadlineExceeded;
}
