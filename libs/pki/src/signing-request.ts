// The X.509 library resolves its algorithms through decorators, which need this polyfill first.
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import {
  exportKey,
  generateKeys,
  type HostName,
  importKeys,
  KEY_ALGORITHM,
  type KeyPair,
  type LeafFacts,
  readCertificate,
  SIGNING_ALGORITHM,
  signKey,
} from './issue.ts';

/** A certificate signing request in PEM, and the key that it is for, which stays with whoever made it. */
export interface SigningRequest {
  readonly csrPem: string;
  readonly keyPem: string;
}

/**
 * A request for a certificate: for a new key, or for the one that is given. What the certificate says is up to who signs.
 */
export async function makeSigningRequest(earlierKeyPem?: string): Promise<SigningRequest> {
  const keys = earlierKeyPem === undefined ? await generateKeys() : await importKeys(earlierKeyPem);
  const request = await x509.Pkcs10CertificateRequestGenerator.create(
    { name: 'CN=wrenn-agent', keys, signingAlgorithm: SIGNING_ALGORITHM },
    webcrypto,
  );
  return { csrPem: `${request.toString('pem')}\n`, keyPem: earlierKeyPem ?? (await exportKey(keys.privateKey)) };
}

/** The request is none, its signature is not by its own key, or its key is of a kind that nobody here makes. */
export class SigningRequestError extends Error {
  override readonly name = 'SigningRequestError';
}

/** A certificate and what it says of itself. */
export interface SignedCertificate {
  readonly certPem: string;
  readonly fingerprint: string;
  readonly notAfter: Date;
}

/** @throws SigningRequestError whose message says what is wrong with it */
export async function checkSigningRequest(csrPem: string): Promise<x509.PublicKey> {
  let request: x509.Pkcs10CertificateRequest;
  try {
    request = new x509.Pkcs10CertificateRequest(csrPem);
  } catch (cause) {
    throw new SigningRequestError('it is no certificate signing request in PEM', { cause });
  }
  const { name, namedCurve } = request.publicKey.algorithm as { name: string; namedCurve?: string };
  if (name !== KEY_ALGORITHM.name || namedCurve !== KEY_ALGORITHM.namedCurve)
    throw new SigningRequestError('its key is not one of ECDSA with P-256');
  const isSigned = await request.verify(webcrypto).catch(() => false);
  if (!isSigned) throw new SigningRequestError('it is not signed by its own key');
  return request.publicKey;
}

/**
 * A certificate for the key of a request. Of the request nothing else counts: names and role are what the caller says.
 *
 * @throws SigningRequestError
 */
export async function signRequest(authority: KeyPair, csrPem: string, facts: LeafFacts): Promise<SignedCertificate> {
  const certPem = await signKey(authority, await checkSigningRequest(csrPem), facts);
  const { fingerprint, notAfter } = readCertificate(certPem);
  return { certPem, fingerprint, notAfter };
}

/** The name in an address such as `10.0.0.5:50051` or `[fd00::5]:50051`. */
export function hostNameOf(address: string): HostName {
  const host = address.slice(0, address.lastIndexOf(':')).replace(/^\[|\]$/g, '');
  const isIp = host.includes(':') || /^\d{1,3}(\.\d{1,3}){3}$/.test(host);
  return { type: isIp ? 'ip' : 'dns', value: host };
}
