// The X.509 library resolves its algorithms through decorators, which need this polyfill first.
import 'reflect-metadata';
import { execFileSync } from 'node:child_process';
import { createPrivateKey, generateKeyPairSync, webcrypto } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';
import { describe, expect, it } from 'vitest';
import { GivenAuthorityError, readGivenAuthority } from './given-authority.ts';
import { isIssuedBy, issueAuthority, readCertificate } from './issue.ts';
import { hostNameOf, makeSigningRequest, SigningRequestError, signRequest } from './signing-request.ts';

const facts = {
  role: 'agent',
  name: 'host-abc',
  hosts: [{ type: 'ip', value: '10.0.0.5' }],
  validDays: 14,
} as const;

describe('signRequest', () => {
  it('gives a certificate for the key that stays with its maker', async () => {
    const authority = await issueAuthority(30);
    const { csrPem, keyPem } = await makeSigningRequest();
    const { certPem, fingerprint, notAfter } = await signRequest(authority, csrPem, facts);
    expect(await isIssuedBy({ certPem, keyPem }, authority.certPem)).toBe(true);
    expect(readCertificate(certPem)).toMatchObject({
      role: 'agent',
      name: 'host-abc',
      hosts: facts.hosts,
      fingerprint,
    });
    expect(notAfter.getTime() - Date.now()).toBeLessThanOrEqual(14 * 86_400_000);
    expect(csrPem).not.toContain('PRIVATE');
  });

  it('ignores every name that the request asks for', async () => {
    const keys = await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
    const greedy = await x509.Pkcs10CertificateRequestGenerator.create(
      {
        name: 'CN=host-other',
        keys,
        signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
        extensions: [
          new x509.SubjectAlternativeNameExtension([{ type: 'url', value: 'urn:wrenn:role:control-plane' }]),
          new x509.BasicConstraintsExtension(true, 3, true),
        ],
      },
      webcrypto,
    );
    const { certPem } = await signRequest(await issueAuthority(1), greedy.toString('pem'), facts);
    expect(readCertificate(certPem)).toMatchObject({ role: 'agent', name: 'host-abc' });
    expect(new x509.X509Certificate(certPem).getExtension(x509.BasicConstraintsExtension)?.ca).toBe(false);
  });

  it('refuses what is not signed by its own key, has another kind of key, or is none', async () => {
    const authority = await issueAuthority(1);
    const { csrPem } = await makeSigningRequest();
    const der = Buffer.from(csrPem.replaceAll(/-----.*-----|\s/g, ''), 'base64');
    const last = der.length - 1;
    der[last] = (der[last] ?? 0) ^ 1;
    const forged = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString('base64')}\n-----END CERTIFICATE REQUEST-----`;
    const rsa = await webcrypto.subtle.generateKey(
      { name: 'RSASSA-PKCS1-v1_5', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' },
      true,
      ['sign', 'verify'],
    );
    const ofRsa = await x509.Pkcs10CertificateRequestGenerator.create(
      { name: 'CN=x', keys: rsa, signingAlgorithm: { name: 'RSASSA-PKCS1-v1_5' } },
      webcrypto,
    );
    for (const wrong of [forged, ofRsa.toString('pem'), 'nonsense', authority.certPem]) {
      await expect(signRequest(authority, wrong, facts), wrong.slice(0, 40)).rejects.toThrow(SigningRequestError);
    }
  });
});

describe('readGivenAuthority', () => {
  it('takes PEM with escaped line ends and keys of either form', async () => {
    const made = await issueAuthority(10);
    const sec1 = String(createPrivateKey(made.keyPem).export({ format: 'pem', type: 'sec1' }));
    for (const key of [made.keyPem, sec1, made.keyPem.replaceAll('\n', '\\n')]) {
      const read = readGivenAuthority(made.certPem.replaceAll('\n', '\\n'), key);
      const { csrPem, keyPem } = await makeSigningRequest();
      const { certPem } = await signRequest(read, csrPem, facts);
      expect(await isIssuedBy({ certPem, keyPem }, made.certPem)).toBe(true);
    }
  });

  it('takes an authority that openssl made', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-openssl-'));
    const [key, cert] = [join(dir, 'ca.key'), join(dir, 'ca.pem')];
    const openssl = (...args: string[]) => execFileSync('openssl', args, { timeout: 10_000, stdio: 'pipe' });
    openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', key);
    openssl('req', '-x509', '-new', '-key', key, '-days', '30', '-subj', '/CN=Our CA', '-out', cert);
    const [keyPem, certPem] = await Promise.all([readFile(key, 'utf8'), readFile(cert, 'utf8')]);
    await rm(dir, { recursive: true });
    const { csrPem } = await makeSigningRequest();
    const signed = await signRequest(readGivenAuthority(certPem, keyPem), csrPem, facts);
    expect(readCertificate(signed.certPem).role).toBe('agent');
  });

  it('says which variable is wrong', async () => {
    const [one, other] = await Promise.all([issueAuthority(1), issueAuthority(1)]);
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const rsa = String(privateKey.export({ format: 'pem', type: 'pkcs8' }));
    const past = await issueAuthority(-1);
    expect(() => readGivenAuthority('x', one.keyPem)).toThrow(/WRENN_CA_CERT does not hold/);
    expect(() => readGivenAuthority(one.certPem, 'x')).toThrow(/WRENN_CA_KEY does not hold/);
    expect(() => readGivenAuthority(one.certPem, other.keyPem)).toThrow(/not the key of/);
    expect(() => readGivenAuthority(one.certPem, rsa)).toThrow(/P-256/);
    expect(() => readGivenAuthority(past.certPem, past.keyPem)).toThrow(/valid until/);
    expect(() => readGivenAuthority('x', one.keyPem)).toThrow(GivenAuthorityError);
  });
});

describe('hostNameOf', () => {
  it('tells addresses from names', () => {
    expect(hostNameOf('10.0.0.5:50051')).toEqual({ type: 'ip', value: '10.0.0.5' });
    expect(hostNameOf('[fd00::5]:50051')).toEqual({ type: 'ip', value: 'fd00::5' });
    expect(hostNameOf('a.example.com:1')).toEqual({ type: 'dns', value: 'a.example.com' });
  });
});
