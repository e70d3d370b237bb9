import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import type { KeyPair } from './issue.ts';

/** The given authority cannot be used; the message says which variable is wrong and how. */
export class GivenAuthorityError extends Error {
  override readonly name = 'GivenAuthorityError';
}

/**
 * The authority of WRENN_CA_CERT and WRENN_CA_KEY. Line ends may be written as `\\n`, as .env files need it. The key may
 * be PKCS #8 or what `openssl ecparam` writes.
 *
 * @throws GivenAuthorityError
 */
export function readGivenAuthority(certText: string, keyText: string): KeyPair {
  const cert = parse('WRENN_CA_CERT', 'a certificate', () => new X509Certificate(unescaped(certText)));
  const key = parse('WRENN_CA_KEY', 'a private key', () => createPrivateKey(unescaped(keyText)));
  if (key.asymmetricKeyType !== 'ec' || key.asymmetricKeyDetails?.namedCurve !== 'prime256v1')
    throw new GivenAuthorityError('WRENN_CA_KEY must be a key of ECDSA with P-256 (prime256v1).');
  if (!cert.publicKey.equals(createPublicKey(key)))
    throw new GivenAuthorityError('WRENN_CA_KEY is not the key of the certificate in WRENN_CA_CERT.');
  if (!cert.ca)
    throw new GivenAuthorityError('WRENN_CA_CERT is no certificate of an authority (basicConstraints CA:TRUE).');
  if (new Date(cert.validTo).getTime() <= Date.now())
    throw new GivenAuthorityError(`WRENN_CA_CERT was valid until ${cert.validTo}.`);
  return {
    certPem: cert.toString(),
    keyPem: String(key.export({ format: 'pem', type: 'pkcs8' })),
  };
}

const unescaped = (text: string) => `${text.replaceAll('\\n', '\n').trim()}\n`;

function parse<T>(name: string, what: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new GivenAuthorityError(`${name} does not hold ${what} in PEM.`, { cause });
  }
}
