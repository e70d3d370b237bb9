import type { FastifyReply, FastifyRequest } from 'fastify';

/** Why work for a request stops: nobody waits for its answer any more. */
export class ClientGoneError extends Error {
  override readonly name = 'ClientGoneError';
}

/** Aborts when the client's connection ends before the answer was sent in full. */
export function clientGone(request: FastifyRequest, reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  const abort = () => {
    if (!reply.raw.writableFinished) controller.abort(new ClientGoneError('the client is gone'));
  };
  // Also before the handler began: then nothing more is heard of it.
  if (reply.raw.destroyed || (request.raw.destroyed && !request.raw.complete)) abort();
  else reply.raw.once('close', abort);
  return controller.signal;
}
