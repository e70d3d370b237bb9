import { WrennError } from '@wrenn/protocol/errors';
import type { HostCredentialsBody } from '@wrenn/protocol/rest/hosts';
import { eq, sql } from 'drizzle-orm';
import { type Db, isUniqueViolation } from '../database/database.ts';
import { ADDRESS_INDEX, hosts } from '../database/host-schema.ts';
import { hashToken } from '../tokens/one-time-tokens.ts';
import { addressOf } from './host-body.ts';
import { auditHost, endCredentials, findCredential, requireUsable, useCredential } from './host-credentials.ts';
import { announceHost } from './host-rows.ts';
import { type IssuerDeps, issueCredentials } from './issue-credentials.ts';

/**
 * How long a set holds beside the next one as long as nobody has used that: its answer may have been lost. Then the host
 * asks again with what it has.
 */
const GRACE = sql`now() + interval '7 days'`;

interface RefreshRequest {
  readonly refreshToken: string;
  readonly csr: string;
  /** `host:port` where the host is reached from now on; undefined: where it was. */
  readonly address: string | undefined;
  readonly from: string;
}

/**
 * Gives a host its next set of credentials. The earlier ones end when it is first used, or after a time of grace.
 *
 * @throws WrennError `host_credential_refused`; `host_deleted` when the host was deleted; `invalid_request`;
 *   `conflict` when another host has the address
 */
export async function refreshCredentials(
  deps: IssuerDeps & { readonly db: Db },
  { refreshToken, csr, address, from }: RefreshRequest,
): Promise<HostCredentialsBody> {
  const credential = await findCredential(deps.db, { tokenHash: hashToken(refreshToken) });
  if (!credential) throw new WrennError('host_credential_refused', { problem: 'nothing is known of it' });
  await requireUsable(deps.db, credential, 'refresh_token');
  const { hostId } = credential;
  try {
    return await deps.db.transaction(async (tx) => {
      // A deletion or another registration comes before or after.
      const [host] = await tx.select().from(hosts).where(eq(hosts.id, hostId)).for('no key update');
      if (!host || host.deletedAt) throw new WrennError('host_deleted', { id: hostId });
      // Judged again: a registration may have ended it meanwhile. Noted only now as used: the answer to an earlier
      // request of the host may still be on its way.
      await useCredential(tx, credential);
      await endCredentials(tx, hostId, undefined, GRACE);
      const before = addressOf(host) ?? undefined;
      if (address !== undefined && address !== before) await moveTo(tx, hostId, address);
      const made = await issueCredentials(tx, deps, { hostId, address: address ?? before, csr });
      const facts = { cert_expires_at: made.cert_expires_at, ...(address === undefined ? {} : { address, before }) };
      await auditHost(tx, host, 'refresh_credentials', 'success', facts, from);
      return made;
    });
  } catch (error) {
    if (isUniqueViolation(error, ADDRESS_INDEX))
      throw new WrennError('conflict', { what: `Another host at ${address}` });
    throw error;
  }
}

async function moveTo(tx: Db, hostId: string, address: string): Promise<void> {
  await tx
    .update(hosts)
    .set({ address: `https://${address}`, connection: 'inbound', updatedAt: sql`now()` })
    .where(eq(hosts.id, hostId));
  await announceHost(tx, hostId);
}
