import { ConnectError, type Interceptor } from '@connectrpc/connect';
import { toConnectError } from '@wrenn/protocol/connect-errors';
import { toWrennError } from './errors.ts';

/** Turns whatever a handler throws, at once or in the middle of its stream, into an error of the catalogue. */
export const catalogueErrors: Interceptor = (next) => async (request) => {
  try {
    const response = await next(request);
    return response.stream ? { ...response, message: translate(response.message) } : response;
  } catch (error) {
    throw asConnectError(error);
  }
};

async function* translate<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
  try {
    yield* messages;
  } catch (error) {
    throw asConnectError(error);
  }
}

function asConnectError(error: unknown): ConnectError {
  return error instanceof ConnectError ? error : toConnectError(toWrennError(error));
}
