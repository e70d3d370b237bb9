import { WrennError } from '@wrenn/protocol/errors';
import { errors, jwtVerify, SignJWT } from 'jose';
import { z } from 'zod';

/** Who may read the token: tokens of other kinds are made for another audience, and neither works for the other. */
const AUDIENCE = 'wrenn-user';
const ALGORITHM = 'HS256';

const claimsSchema = z.object({
  sub: z.string(),
  sid: z.string(),
  team_id: z.string().optional(),
});

/** What a token of a login says. Only the ids count; the rest is for clients to show. */
export interface SessionClaims {
  readonly userId: string;
  readonly sessionId: string;
  readonly teamId: string | undefined;
}

/** What clients read in it. */
export interface ShownClaims {
  readonly name: string;
  readonly email: string;
  readonly role: string | undefined;
  readonly isAdmin: boolean;
}

/** A signed token of a session, for one team. */
export function signSessionToken(
  secret: Uint8Array,
  { userId, sessionId, teamId }: SessionClaims,
  { name, email, role, isAdmin }: ShownClaims,
  expiresAt: Date,
): Promise<string> {
  return new SignJWT({ sid: sessionId, team_id: teamId, role, email, name, is_admin: isAdmin })
    .setProtectedHeader({ alg: ALGORITHM, typ: 'JWT' })
    .setSubject(userId)
    .setAudience(AUDIENCE)
    .setIssuedAt()
    .setExpirationTime(Math.floor(expiresAt.getTime() / 1000))
    .sign(secret);
}

/**
 * What a token says, once its signature, kind and age are right. The session itself must still be looked up.
 *
 * @throws WrennError `unauthorized`
 */
export async function verifySessionToken(secret: Uint8Array, token: string): Promise<SessionClaims> {
  try {
    const { payload } = await jwtVerify(token, secret, { audience: AUDIENCE, algorithms: [ALGORITHM] });
    const { sub, sid, team_id: teamId } = claimsSchema.parse(payload);
    return { userId: sub, sessionId: sid, teamId };
  } catch (error) {
    if (error instanceof errors.JOSEError || error instanceof z.ZodError) {
      throw new WrennError('unauthorized', {}, { cause: error });
    }
    throw error;
  }
}
