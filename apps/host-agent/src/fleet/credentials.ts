import { readFile } from 'node:fs/promises';
import { replaceFile } from '@wrenn/config/atomic-file';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { isIssuedBy, readCertificate } from '@wrenn/pki/issue';
import { z } from 'zod';
import type { AgentPki } from '../server/agent-server.ts';

/** What WRENN_DIR/host-token holds, in one file so that it is never half of one set and half of another. */
const fileSchema = z.object({
  cp_url: z.url(),
  host_id: z.string().min(1),
  /** `host:port`; absent: this agent connects to the control plane. */
  address: z.string().optional(),
  token: z.string().min(1),
  refresh_token: z.string().min(1),
  cert_pem: z.string().min(1),
  key_pem: z.string().min(1),
  ca_cert_pem: z.string().min(1),
  /** By this machine's clock. */
  obtained_at: z.iso.datetime(),
  /** Hash of the registration token: a start with the same one is no second registration. */
  registered_with: z.string(),
});

/** What this host proves itself with, and to whom. */
export type HostCredentials = Readonly<z.output<typeof fileSchema>>;

/** What a control plane gives; whatever else a newer one says is left out. */
export const issuedSchema = fileSchema.pick({
  host_id: true,
  token: true,
  refresh_token: true,
  cert_pem: true,
  ca_cert_pem: true,
});
export type IssuedCredentials = z.output<typeof issuedSchema>;

/** The credentials file, or what a control plane answered, is not usable. The message says what to do. */
export class CredentialsError extends Error {
  override readonly name = 'CredentialsError';
}

/**
 * What an earlier start saved; undefined where this machine has not joined.
 *
 * @throws CredentialsError
 */
export async function readCredentials({ hostCredentials: path }: WrennDir): Promise<HostCredentials | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const credentials = fileSchema.parse(JSON.parse(text));
    await checkIssued(credentials, credentials.key_pem);
    return credentials;
  } catch (cause) {
    throw new CredentialsError(
      `${path} is damaged. Make a token with POST /v1/hosts/{id}/token and start the agent once with --register; its capsules stay.`,
      { cause },
    );
  }
}

/** On return they are on stable storage. */
export async function saveCredentials(dir: WrennDir, credentials: HostCredentials): Promise<void> {
  await replaceFile(dir.hostCredentials, `${JSON.stringify(credentials, null, 2)}\n`, { mode: 0o600 });
}

/**
 * Looks at what nobody should save: a certificate that is not of this key, authority and host would cut the host off.
 *
 * @throws CredentialsError
 */
export async function checkIssued(issued: IssuedCredentials, keyPem: string): Promise<void> {
  const { cert_pem: certPem, ca_cert_pem: caCertPem, host_id: hostId } = issued;
  let problem: string | undefined;
  try {
    const { role, name } = readCertificate(certPem);
    if (role !== 'agent' || name !== hostId) problem = `its certificate is of ${name}, not of the agent of ${hostId}`;
    else if (!(await isIssuedBy({ certPem, keyPem }, caCertPem))) problem = 'its certificate is of another key';
  } catch (cause) {
    throw new CredentialsError('The credentials hold no certificate.', { cause });
  }
  if (problem) throw new CredentialsError(`The credentials are not usable: ${problem}.`);
}

/** What the agent's server works with. */
export function pkiOf(credentials: HostCredentials): AgentPki {
  const { ca_cert_pem: caCertPem, cert_pem: certPem, key_pem: keyPem } = credentials;
  return { caCertPem, agent: { certPem, keyPem } };
}

/**
 * When a set should be replaced: after two thirds of its life, counted from when it was got, so that a clock that is off
 * matters little. In milliseconds since 1970, by this machine's clock.
 */
export function renewAtMs(credentials: HostCredentials): number {
  const { notBefore, notAfter } = readCertificate(credentials.cert_pem);
  const lives = [notAfter.getTime() - notBefore.getTime(), tokenLifeMs(credentials.token)];
  const lifeMs = Math.min(...lives.filter((ms) => ms !== undefined));
  // A clock that was set back meanwhile must not put it off.
  const obtainedMs = Math.min(new Date(credentials.obtained_at).getTime(), Date.now());
  return obtainedMs + (lifeMs * 2) / 3;
}

const claimsSchema = z.object({ iat: z.number(), exp: z.number() });

/** Undefined for tokens that do not say it. */
function tokenLifeMs(token: string): number | undefined {
  try {
    const payload = Buffer.from(token.split('.')[1] ?? '', 'base64url').toString();
    const { iat, exp } = claimsSchema.parse(JSON.parse(payload));
    return (exp - iat) * 1000;
  } catch {
    // What a token looks like is the control plane's affair.
    return undefined;
  }
}
