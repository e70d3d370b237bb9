import type { FastifyRequest } from 'fastify';

/** Whom passkeys are for, as browsers know it. */
export interface RelyingParty {
  /** A host name; passkeys work for pages of it only. */
  readonly id: string;
  readonly origin: string;
}

/** This platform: at its public address or, where none is set, at the one that the browser used. */
export function relyingParty(
  request: Pick<FastifyRequest, 'protocol' | 'host'>,
  publicUrl: string | undefined,
): RelyingParty {
  const { hostname, origin } = new URL(publicUrl ?? `${request.protocol}://${request.host}`);
  return { id: hostname, origin };
}
