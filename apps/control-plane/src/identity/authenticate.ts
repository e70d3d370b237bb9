import { WrennError } from '@wrenn/protocol/errors';
import { apiKeyBody } from '@wrenn/protocol/ids';
import type { KeyHolder, SignedInUser } from '../access/principal.ts';
import { findKeyHolder } from '../api-keys/key-holder.ts';
import type { Db } from '../database/database.ts';
import { verifySessionToken } from './session-token.ts';
import { findSignedInUser } from './sessions.ts';

/** What credentials are checked with. */
export interface AuthDeps {
  readonly db: Db;
  readonly jwtSecret: Uint8Array;
}

/**
 * Who a credential stands for now: revoked, expired and foreign ones, members who left and teams that were deleted are
 * seen at once, since the database is asked each time.
 *
 * @throws WrennError `unauthorized`, `account_deactivated`
 */
export async function authenticate({ db, jwtSecret }: AuthDeps, credential: string): Promise<SignedInUser | KeyHolder> {
  const body = apiKeyBody(credential.trim());
  if (body !== undefined) return findKeyHolder(db, body);
  if (credential.split('.').length !== 3) throw new WrennError('unauthorized');
  return findSignedInUser(db, await verifySessionToken(jwtSecret, credential));
}
