import { mkdir, readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { createFile, replaceFile } from '@wrenn/config/atomic-file';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import {
  type HostName,
  isIssuedBy,
  issueAuthority,
  issueLeaf,
  type KeyPair,
  type Role,
  readCertificate,
} from './issue.ts';

const DAY_MS = 86_400_000;
const AUTHORITY_DAYS = 3650;
const LEAF_DAYS = 365;
/** Renewed at start when less than this is left. */
const RENEW_AUTHORITY_DAYS = 400;
const RENEW_LEAF_DAYS = 60;

/** What the programs on one machine need to trust each other. */
export interface LocalPki {
  readonly caCertPem: string;
  readonly agent: KeyPair;
  readonly controlPlane: KeyPair;
}

/** The certificate authority in `{wrennDir}/pki`, made or renewed where needed. */
export async function ensureLocalAuthority(root: string): Promise<KeyPair> {
  const dir = wrennDir(root).pki;
  await mkdir(dir, { recursive: true, mode: 0o700 });
  return ensureAuthority(join(dir, 'ca.pem'));
}

/**
 * The certificate authority and certificates in `{wrennDir}/pki`, made or renewed where needed. Several programs may
 * call it at the same instant: they end with the same authority.
 *
 * Each file holds a certificate and its private key together, so that a pair is never half replaced.
 */
export async function ensureLocalPki(root: string): Promise<LocalPki> {
  const dir = wrennDir(root).pki;
  const authority = await ensureLocalAuthority(root);
  const [agent, controlPlane] = await Promise.all([
    ensureLeaf(join(dir, 'agent.pem'), authority, 'agent'),
    ensureLeaf(join(dir, 'control-plane.pem'), authority, 'control-plane'),
  ]);
  return { caCertPem: authority.certPem, agent, controlPlane };
}

async function ensureAuthority(path: string): Promise<KeyPair> {
  const found = await readPair(path);
  if (found) {
    if (daysLeft(found) > RENEW_AUTHORITY_DAYS) return found;
    // The same key: certificates of the earlier validity stay good, and two renewals at once are equal in effect.
    const renewed = await issueAuthority(AUTHORITY_DAYS, found.keyPem);
    await replaceFile(path, format(renewed), { mode: 0o600 });
    return renewed;
  }
  const made = await issueAuthority(AUTHORITY_DAYS);
  if (await createFile(path, format(made), { mode: 0o600 })) return made;
  return ensureAuthority(path);
}

async function ensureLeaf(path: string, authority: KeyPair, role: Role): Promise<KeyPair> {
  const hosts = hostNames();
  const found = await readPair(path);
  if (found && daysLeft(found) > RENEW_LEAF_DAYS && covers(found, role, hosts)) {
    if (await isIssuedBy(found, authority.certPem)) return found;
  }
  const made = await issueLeaf(authority, role, hosts, LEAF_DAYS);
  await replaceFile(path, format(made), { mode: 0o600 });
  return made;
}

function hostNames(): HostName[] {
  const own = hostname();
  const names: HostName[] = [
    { type: 'dns', value: 'localhost' },
    { type: 'ip', value: '127.0.0.1' },
    { type: 'ip', value: '::1' },
  ];
  // A machine's name may be anything; only what can stand in a certificate goes in.
  if (own !== 'localhost' && /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(own)) {
    names.push({ type: 'dns', value: own });
  }
  return names;
}

function covers(pair: KeyPair, role: Role, hosts: readonly HostName[]): boolean {
  const facts = readCertificate(pair.certPem);
  return facts.role === role && hosts.every((host) => facts.hosts.some((has) => has.value === host.value));
}

function daysLeft(pair: KeyPair): number {
  return (readCertificate(pair.certPem).notAfter.getTime() - Date.now()) / DAY_MS;
}

function format(pair: KeyPair): string {
  return `${pair.certPem}${pair.keyPem}`;
}

async function readPair(path: string): Promise<KeyPair | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const certPem = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/.exec(text)?.[0];
  const keyPem = /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----/.exec(text)?.[0];
  if (!certPem || !keyPem) {
    throw new Error(`${path} holds no certificate with its key; remove the file to have a new one made`);
  }
  return { certPem: `${certPem}\n`, keyPem: `${keyPem}\n` };
}
