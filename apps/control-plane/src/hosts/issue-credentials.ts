import type { KeyPair } from '@wrenn/pki/issue';
import { hostNameOf, type SignedCertificate, SigningRequestError, signRequest } from '@wrenn/pki/signing-request';
import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import type { HostCredentialsBody } from '@wrenn/protocol/rest/hosts';
import type { Db } from '../database/database.ts';
import { hostRefreshTokens } from '../database/host-schema.ts';
import { hashToken, newToken } from '../tokens/one-time-tokens.ts';
import { signHostToken } from './host-token.ts';

const DAY_MS = 86_400_000;
const TOKEN_MS = 7 * DAY_MS;
const REFRESH_MS = 60 * DAY_MS;
/** Longer than the token, so that a late renewal does not cut the host off. */
const CERTIFICATE_DAYS = 14;

/** What credentials of hosts are made with. */
export interface IssuerDeps {
  readonly jwtSecret: Uint8Array;
  readonly authority: KeyPair;
}

export interface IssueFor {
  readonly hostId: string;
  /** `host:port` at which the host is reached; undefined: it connects to the control plane. */
  readonly address: string | undefined;
  readonly csr: string;
}

/**
 * A certificate for the key of a request: an agent's, named after the host, for the address alone.
 *
 * @throws WrennError `invalid_request`
 */
export async function certify(authority: KeyPair, { hostId, address, csr }: IssueFor): Promise<SignedCertificate> {
  const hosts = address === undefined ? [] : [hostNameOf(address)];
  try {
    return await signRequest(authority, csr, { role: 'agent', name: hostId, hosts, validDays: CERTIFICATE_DAYS });
  } catch (cause) {
    if (!(cause instanceof SigningRequestError)) throw cause;
    throw new WrennError('invalid_request', { problem: `csr: ${cause.message}` }, { cause });
  }
}

/** Makes a new set of credentials. Of the refresh token only the hash is kept. */
export async function issueCredentials(
  tx: Db,
  { jwtSecret, authority }: IssuerDeps,
  whose: IssueFor,
): Promise<HostCredentialsBody> {
  const { hostId } = whose;
  const { certPem, fingerprint, notAfter } = await certify(authority, whose);
  const id = newId('hrt');
  const refreshToken = newToken();
  const tokenExpiresAt = new Date(Date.now() + TOKEN_MS);
  const expiresAt = new Date(Date.now() + REFRESH_MS);
  await tx.insert(hostRefreshTokens).values({
    ...{ id, hostId, tokenHash: hashToken(refreshToken), expiresAt },
    ...{ certFingerprint: fingerprint, certExpiresAt: notAfter },
  });
  return {
    host_id: hostId,
    token: await signHostToken(jwtSecret, { hostId, credentialId: id }, tokenExpiresAt),
    token_expires_at: tokenExpiresAt.toISOString(),
    refresh_token: refreshToken,
    refresh_expires_at: expiresAt.toISOString(),
    cert_pem: certPem,
    cert_expires_at: notAfter.toISOString(),
    ca_cert_pem: authority.certPem,
  };
}
