import { Code, ConnectError, type Interceptor } from '@connectrpc/connect';
import { toConnectError } from '@wrenn/protocol/connect-errors';
import { WrennError } from '@wrenn/protocol/errors';
import { toWrennError } from './errors.ts';

/** Turns whatever a handler throws, at once or in the middle of its stream, into an error of the catalogue. */
export const catalogueErrors: Interceptor = (next) => async (request) => {
  try {
    const response = await next(request);
    return response.stream ? { ...response, message: translate(response.message, request.signal) } : response;
  } catch (error) {
    throw asConnectError(error, request.signal);
  }
};

async function* translate<T>(messages: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
  try {
    yield* messages;
  } catch (error) {
    throw asConnectError(error, signal);
  }
}

function asConnectError(error: unknown, signal: AbortSignal): ConnectError {
  if (error instanceof ConnectError) return error;
  // The client has gone, and this is its connection's error; nobody is left to be told.
  if (signal.aborted && !(error instanceof WrennError)) return ConnectError.from(signal.reason, Code.Canceled);
  return toConnectError(toWrennError(error));
}
