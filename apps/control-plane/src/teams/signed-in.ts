import { WrennError } from '@wrenn/protocol/errors';
import type { FastifyRequest } from 'fastify';
import type { SignedInUser } from '../access/principal.ts';

/**
 * The person who sent a request.
 *
 * @throws WrennError `login_required` when it is a program with a key
 */
export function signedIn({ principal }: FastifyRequest): SignedInUser {
  if (principal?.type !== 'user') throw new WrennError('login_required');
  return principal;
}
