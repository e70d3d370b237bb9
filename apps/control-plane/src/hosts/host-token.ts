import { WrennError } from '@wrenn/protocol/errors';
import { errors, jwtVerify, SignJWT } from 'jose';
import { z } from 'zod';
import type { HostAgent } from '../access/principal.ts';
import type { Db } from '../database/database.ts';
import { findCredential, requireUsable, useCredential } from './host-credentials.ts';

/** Tokens of logins are for another audience, and neither works for the other. */
const AUDIENCE = 'wrenn-host';
const TYPE = 'host';
const ALGORITHM = 'HS256';

const claimsSchema = z.object({ typ: z.literal(TYPE), host_id: z.string(), jti: z.string() });

/** The token that goes with a set of credentials. */
export function signHostToken(
  secret: Uint8Array,
  { hostId, credentialId }: { readonly hostId: string; readonly credentialId: string },
  expiresAt: Date,
): Promise<string> {
  return new SignJWT({ typ: TYPE, host_id: hostId })
    .setProtectedHeader({ alg: ALGORITHM, typ: 'JWT' })
    .setJti(credentialId)
    .setAudience(AUDIENCE)
    .setIssuedAt()
    .setExpirationTime(Math.floor(expiresAt.getTime() / 1000))
    .sign(secret);
}

/**
 * Which host a token is of, as the database says now. The first use of a set of credentials ends the sets before it.
 *
 * @throws WrennError `unauthorized`, `host_credential_refused`; `host_deleted` when it was deleted
 */
export async function authenticateHost(
  { db, jwtSecret }: { readonly db: Db; readonly jwtSecret: Uint8Array },
  token: string,
): Promise<HostAgent> {
  const { host_id: hostId, jti } = await verify(jwtSecret, token);
  const credential = await findCredential(db, { id: jti, hostId });
  if (!credential) throw new WrennError('host_credential_refused', { problem: 'nothing is known of it' });
  await requireUsable(db, credential, 'token');
  if (!credential.usedAt) await useCredential(db, credential);
  return { type: 'host', id: hostId, name: hostId, credentialId: jti, team: undefined };
}

async function verify(secret: Uint8Array, token: string): Promise<z.output<typeof claimsSchema>> {
  try {
    const { payload } = await jwtVerify(token, secret, { audience: AUDIENCE, algorithms: [ALGORITHM] });
    return claimsSchema.parse(payload);
  } catch (cause) {
    if (cause instanceof errors.JWTExpired)
      throw new WrennError('host_credential_refused', { problem: 'it has expired' });
    if (cause instanceof errors.JOSEError || cause instanceof z.ZodError) {
      throw new WrennError('unauthorized', {}, { cause });
    }
    throw cause;
  }
}
