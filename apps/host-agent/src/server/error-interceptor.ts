import { ConnectError, type Interceptor } from '@connectrpc/connect';
import { toConnectError } from '@wrenn/protocol/connect-errors';
import { WrennError } from '@wrenn/protocol/errors';
import type { Logger } from 'pino';

/** Gives callers the catalogue's errors only. What is none is a defect: it goes to the log with all its details. */
export function errorInterceptor(log: Logger): Interceptor {
  return (next) => async (request) => {
    try {
      return await next(request);
    } catch (error) {
      const known = whyItFailed(error);
      if (known instanceof WrennError) throw toConnectError(known);
      // The library's own: a deadline that passed, a caller that left, a message that cannot be read.
      if (known instanceof ConnectError) throw known;
      log.error({ err: error, verb: request.method.name }, 'a verb failed for an unknown reason');
      throw toConnectError(new WrennError('internal_error', {}, { cause: error }));
    }
  };
}

/** That freeing something failed too says less than why it was freed. */
function whyItFailed(error: unknown): unknown {
  return error instanceof SuppressedError ? whyItFailed(error.suppressed) : error;
}
