import { createHash } from 'node:crypto';
import { checkSigningRequest, SigningRequestError } from '@wrenn/pki/signing-request';
import { WrennError } from '@wrenn/protocol/errors';
import type { HostCredentialsBody, registerHostRequestSchema } from '@wrenn/protocol/rest/hosts';
import { and, desc, eq, gte, isNotNull, isNull, sql } from 'drizzle-orm';
import type { z } from 'zod';
import { type Db, isUniqueViolation } from '../database/database.ts';
import { ADDRESS_INDEX, hostRefreshTokens, hosts, hostTokens } from '../database/host-schema.ts';
import { teams } from '../database/people-schema.ts';
import { hashToken, peekToken, takeToken } from '../tokens/one-time-tokens.ts';
import { architectureOf } from './architecture.ts';
import { auditHost, endCredentials } from './host-credentials.ts';
import { announceHost } from './host-rows.ts';
import { type IssuerDeps, issueCredentials } from './issue-credentials.ts';

const MB_PER_GB = 1024;

type Registration = z.output<typeof registerHostRequestSchema>;

/**
 * Gives the agent that has a registration token the credentials of its host. Of several with one token one wins, and may
 * ask again as long as it has used nothing of what it got: the answer may have been lost. Where it fails for another
 * reason the token still works. All earlier credentials of the host end.
 *
 * @param from address of the agent, as this server sees it
 * @throws WrennError `registration_refused`; `invalid_request`; `conflict` when another host has the address
 */
export async function registerHost(
  deps: IssuerDeps & { readonly db: Db },
  asked: Registration,
  from: string,
): Promise<HostCredentialsBody> {
  const arch = architectureOf(asked.arch);
  if (!arch) throw new WrennError('invalid_request', { problem: 'arch must be amd64 or arm64' });
  const key = await keyOf(asked.csr);
  try {
    return await deps.db.transaction(async (tx) => {
      const hostId = await takeHost(tx, { token: asked.token, key, from });
      await endCredentials(tx, hostId);
      const made = await issueCredentials(tx, deps, { hostId, address: asked.address, csr: asked.csr });
      const teamId = await writeFacts(tx, hostId, { ...asked, arch });
      const { address = null, cpu_cores: cpus, memory_mb: memoryMb, agent_version: version = null } = asked;
      const facts = { address, arch, cpus, memory_mb: memoryMb, agent_version: version };
      await auditHost(tx, { id: hostId, teamId }, 'register', 'success', facts, from);
      await announceHost(tx, hostId);
      return made;
    });
  } catch (error) {
    if (isUniqueViolation(error, ADDRESS_INDEX))
      throw new WrennError('conflict', { what: `Another host at ${asked.address}` });
    throw error;
  }
}

/** SHA-256 of the key that a request is for, and signed by. */
async function keyOf(csr: string): Promise<string> {
  try {
    const { rawData } = await checkSigningRequest(csr);
    return createHash('sha256').update(new Uint8Array(rawData)).digest('hex');
  } catch (cause) {
    if (!(cause instanceof SigningRequestError)) throw cause;
    throw new WrennError('invalid_request', { problem: `csr: ${cause.message}` }, { cause });
  }
}

interface Attempt {
  readonly token: string;
  readonly key: string;
  readonly from: string;
}

/** Locks the host of a token, and then takes the token out: in the order in which a new one is made. */
async function takeHost(tx: Db, attempt: Attempt): Promise<string> {
  const { token, key, from } = attempt;
  const refused = async () => new WrennError('registration_refused', { problem: await whyRefused(tx, token) });
  const found = await peekToken(tx, 'host_registration', token);
  const hostId = found ? found.subject : await hostOfRepeated(tx, attempt);
  if (hostId === undefined) throw await refused();
  const [host] = await tx.select().from(hosts).where(eq(hosts.id, hostId));
  if (host?.teamId) {
    const [team] = await tx
      .select({ id: teams.id })
      .from(teams)
      .where(and(eq(teams.id, host.teamId), isNull(teams.deletedAt)))
      .for('share');
    if (!team) throw new WrennError('registration_refused', { problem: 'the team of its host was deleted' });
  }
  const [locked] = await tx.select().from(hosts).where(eq(hosts.id, hostId)).for('no key update');
  if (!locked || locked.deletedAt) throw new WrennError('registration_refused', { problem: 'its host was deleted' });
  const taken = found && (await takeToken(tx, 'host_registration', token));
  if (!taken && (await hostOfRepeated(tx, attempt)) === undefined) throw await refused();
  await tx
    .update(hostTokens)
    .set({ usedAt: sql`coalesce(${hostTokens.usedAt}, now())`, usedFrom: from, usedKey: key })
    .where(eq(hostTokens.tokenHash, hashToken(token)));
  return hostId;
}

/** The host that registered with this token and key, if it may never have learned that. */
async function hostOfRepeated(tx: Db, { token, key }: Attempt): Promise<string | undefined> {
  const [row] = await tx
    .select()
    .from(hostTokens)
    .where(eq(hostTokens.tokenHash, hashToken(token)));
  if (!row?.usedAt || row.usedKey !== key || row.expiresAt.getTime() <= Date.now()) return undefined;
  const [newest] = await tx
    .select({ id: hostTokens.id })
    .from(hostTokens)
    .where(eq(hostTokens.hostId, row.hostId))
    .orderBy(desc(hostTokens.createdAt))
    .limit(1);
  if (newest?.id !== row.id) return undefined;
  const used = await tx
    .select({ id: hostRefreshTokens.id })
    .from(hostRefreshTokens)
    .where(
      and(
        eq(hostRefreshTokens.hostId, row.hostId),
        gte(hostRefreshTokens.createdAt, row.usedAt),
        isNotNull(hostRefreshTokens.usedAt),
      ),
    )
    .limit(1);
  return used.length === 0 ? row.hostId : undefined;
}

/** Whoever has a token may know what became of it. */
async function whyRefused(tx: Db, token: string): Promise<string> {
  const [row] = await tx
    .select({ token: hostTokens, deletedAt: hosts.deletedAt })
    .from(hostTokens)
    .innerJoin(hosts, eq(hosts.id, hostTokens.hostId))
    .where(eq(hostTokens.tokenHash, hashToken(token)));
  if (!row) return 'no such token was made; check that it is whole';
  const { usedAt, expiresAt } = row.token;
  if (row.deletedAt) return 'its host was deleted';
  if (usedAt) return `it was used at ${usedAt.toISOString()}`;
  if (expiresAt.getTime() <= Date.now()) return `it expired at ${expiresAt.toISOString()}`;
  return 'a newer one was made for its host';
}

/** @returns id of the host's team */
async function writeFacts(tx: Db, id: string, asked: Registration): Promise<string | null> {
  const [row] = await tx
    .update(hosts)
    .set({
      address: asked.address === undefined ? null : `https://${asked.address}`,
      connection: asked.address === undefined ? 'outbound' : 'inbound',
      ...{ arch: asked.arch, cpuCount: asked.cpu_cores, memoryMb: asked.memory_mb },
      ...{ diskMb: asked.disk_gb * MB_PER_GB, diskFreeMb: asked.disk_free_mb ?? null },
      ...{ hypervisor: asked.hypervisor ?? null, hypervisorVersion: asked.hypervisor_version ?? null },
      ...{ accelerator: asked.accelerator ?? null, kernelVersion: asked.kernel_version ?? null },
      agentVersion: asked.agent_version ?? null,
      ...{ bootId: null, pastBootIds: [], heartbeatSequence: null, heartbeatSentAt: null, sharedAt: null },
      updatedAt: sql`now()`,
    })
    .where(eq(hosts.id, id))
    .returning({ teamId: hosts.teamId });
  if (!row) throw new Error('UPDATE gave no row');
  return row.teamId;
}
