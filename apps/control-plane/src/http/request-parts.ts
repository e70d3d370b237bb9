import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';

/** Every route that changes something takes these. */
export const idempotencyHeaders = z.looseObject({
  'idempotency-key': z
    .string()
    .min(1)
    .max(255)
    .optional()
    .meta({
      description:
        'The same request with the same key, for 30 days, is answered like the first, with `Idempotency-Replayed: true`, ' +
        'and changes nothing more.',
    }),
});

/** For bodies in which everything has a default. */
export async function emptyBody(request: FastifyRequest): Promise<void> {
  request.body ??= {};
}

/** When the request came, in milliseconds since the epoch. */
export function receivedAtMs(reply: FastifyReply): number {
  return performance.timeOrigin + performance.now() - reply.elapsedTime;
}
