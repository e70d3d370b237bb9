import { TLSSocket } from 'node:tls';
import { readCertificate } from '@wrenn/pki/issue';
import { WrennError } from '@wrenn/protocol/errors';
import type { FastifyRequest } from 'fastify';

/**
 * Where a host's connection shows a certificate, it must be that host's: a token on its own may have been copied.
 *
 * @throws WrennError `host_credential_refused`
 */
export function requireOwnCertificate({ raw: { socket } }: Pick<FastifyRequest, 'raw'>, hostId: string): void {
  if (!(socket instanceof TLSSocket)) return;
  // Node's types leave out that a client may show none.
  const { raw } = socket.getPeerCertificate() as { raw?: Uint8Array };
  if (raw && !isCertificateOf(raw, hostId))
    throw new WrennError('host_credential_refused', {
      problem: 'the certificate of the connection is of another host',
    });
}

/** Whether a certificate, in DER, names the host. That the authority signed it is for TLS to see. */
export function isCertificateOf(der: Uint8Array, hostId: string): boolean {
  const { role, name } = readCertificate(Uint8Array.from(der));
  return role === 'agent' && name === hostId;
}
