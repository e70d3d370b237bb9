// The X.509 library resolves its algorithms through decorators, which need this polyfill first.
import 'reflect-metadata';
import { createHash, webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

export const KEY_ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256' } as const;
export const SIGNING_ALGORITHM = { name: 'ECDSA', hash: 'SHA-256' } as const;
const DAY_MS = 86_400_000;
/** Clocks of two machines may differ a little when a certificate is used right after it was made. */
const BACKDATE_MS = 300_000;

/** What a certificate's holder is. Written into it as the URI `urn:wrenn:role:{role}`. */
export type Role = 'agent' | 'control-plane';

const ROLE_URI = 'urn:wrenn:role:';

/** A certificate and its private key, both PEM. */
export interface KeyPair {
  readonly certPem: string;
  readonly keyPem: string;
}

/** A certificate authority; pass the key of an earlier one to renew it so that what it signed stays valid. */
export async function issueAuthority(validDays: number, earlierKeyPem?: string): Promise<KeyPair> {
  const keys = earlierKeyPem ? await importKeys(earlierKeyPem) : await generateKeys();
  const cert = await x509.X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: newSerial(),
      name: 'CN=Wrenn local CA',
      ...validity(validDays),
      keys,
      signingAlgorithm: SIGNING_ALGORITHM,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return { certPem: `${cert.toString('pem')}\n`, keyPem: earlierKeyPem ?? (await exportKey(keys.privateKey)) };
}

/** A certificate for one role on one machine, good for both ends of a TLS connection. */
export async function issueLeaf(
  authority: KeyPair,
  role: Role,
  hosts: readonly HostName[],
  validDays: number,
): Promise<KeyPair> {
  const keys = await generateKeys();
  const certPem = await signKey(authority, keys.publicKey, { role, hosts, validDays });
  return { certPem, keyPem: await exportKey(keys.privateKey) };
}

/** What a certificate is to say. */
export interface LeafFacts {
  readonly role: Role;
  readonly hosts: readonly HostName[];
  readonly validDays: number;
  /** Common name; `wrenn-{role}` unless told. */
  readonly name?: string;
}

/** A certificate, in PEM, for somebody else's key. */
export async function signKey(
  authority: KeyPair,
  publicKey: x509.PublicKeyType,
  { role, hosts, validDays, name = `wrenn-${role}` }: LeafFacts,
): Promise<string> {
  const issuer = new x509.X509Certificate(authority.certPem);
  const issuerKeys = await importKeys(authority.keyPem);
  const names: x509.JsonGeneralName[] = [...hosts, { type: 'url', value: `${ROLE_URI}${role}` }];
  const cert = await x509.X509CertificateGenerator.create(
    {
      serialNumber: newSerial(),
      subject: [{ CN: [name] }],
      issuer: issuer.subject,
      ...validity(validDays),
      publicKey,
      signingKey: issuerKeys.privateKey,
      signingAlgorithm: SIGNING_ALGORITHM,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
        new x509.SubjectAlternativeNameExtension(names),
        await x509.AuthorityKeyIdentifierExtension.create(issuer, false, webcrypto),
        await x509.SubjectKeyIdentifierExtension.create(publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return `${cert.toString('pem')}\n`;
}

/** A name by which a machine is called. */
export interface HostName {
  readonly type: 'dns' | 'ip';
  readonly value: string;
}

/** What a certificate says, as far as Wrenn cares. */
export interface CertificateFacts {
  readonly role: Role | undefined;
  /** Its common name: the id of a host that was registered, `wrenn-{role}` for others. */
  readonly name: string;
  readonly hosts: readonly HostName[];
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** SHA-256 of it, in lower-case hex. */
  readonly fingerprint: string;
}

/** @throws Error when the text or DER bytes are no certificate. */
export function readCertificate(certificate: string | Uint8Array<ArrayBuffer>): CertificateFacts {
  const cert = new x509.X509Certificate(certificate);
  const names = cert.getExtension(x509.SubjectAlternativeNameExtension)?.names.toJSON() ?? [];
  const uris = names.filter((name) => name.type === 'url').map((name) => name.value);
  const role = (['agent', 'control-plane'] as const).find((known) => uris.includes(`${ROLE_URI}${known}`));
  const hosts = names.flatMap(({ type, value }) => (type === 'dns' || type === 'ip' ? [{ type, value }] : []));
  return {
    role,
    name: cert.subjectName.getField('CN')[0] ?? '',
    hosts,
    notBefore: cert.notBefore,
    notAfter: cert.notAfter,
    fingerprint: createHash('sha256').update(new Uint8Array(cert.rawData)).digest('hex'),
  };
}

/** Whether the authority's key signed the certificate and the certificate belongs to the private key beside it. */
export async function isIssuedBy(pair: KeyPair, authorityCertPem: string): Promise<boolean> {
  const cert = new x509.X509Certificate(pair.certPem);
  const authority = new x509.X509Certificate(authorityCertPem);
  const signed = await cert.verify({ publicKey: authority.publicKey, signatureOnly: true }, webcrypto);
  const keys = await importKeys(pair.keyPem);
  const own = Buffer.from(await webcrypto.subtle.exportKey('spki', keys.publicKey));
  return signed && own.equals(Buffer.from(cert.publicKey.rawData));
}

function validity(days: number): { notBefore: Date; notAfter: Date } {
  const now = Date.now();
  return { notBefore: new Date(now - BACKDATE_MS), notAfter: new Date(now + days * DAY_MS) };
}

/** 127 random bits: positive, and unique without a register (RFC 5280, 4.1.2.2). */
function newSerial(): string {
  const bytes = webcrypto.getRandomValues(new Uint8Array(16));
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return Buffer.from(bytes).toString('hex');
}

/** A new key of the kind that every certificate here has. */
export async function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(KEY_ALGORITHM, true, ['sign', 'verify']);
}

export async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  return `${x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`;
}

export async function importKeys(keyPem: string): Promise<webcrypto.CryptoKeyPair> {
  const privateKey = await webcrypto.subtle.importKey(
    'pkcs8',
    x509.PemConverter.decodeFirst(keyPem),
    KEY_ALGORITHM,
    true,
    ['sign'],
  );
  const { kty, crv, x, y } = await webcrypto.subtle.exportKey('jwk', privateKey);
  const publicJwk = { kty, crv, x, y } as webcrypto.JsonWebKey;
  const publicKey = await webcrypto.subtle.importKey('jwk', publicJwk, KEY_ALGORITHM, true, ['verify']);
  return { privateKey, publicKey };
}
