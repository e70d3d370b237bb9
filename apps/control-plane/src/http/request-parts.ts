import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';

export const idempotencyHeaders = z.object({
  'idempotency-key': z.string().min(1).max(255).optional().meta({
    description: 'A repeated request with the same key, for 30 days, answers what the first one brought about.',
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
