import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { isoCBOR } from '@simplewebauthn/server/helpers';

/** Bits of an authenticator's data: user present, user verified, with a credential. */
const PRESENT = 0x01;
const VERIFIED = 0x04;
const WITH_CREDENTIAL = 0x40;

interface Credential {
  readonly id: Buffer;
  readonly rpId: string;
  readonly userHandle: string;
  readonly privateKey: KeyObject;
}

/** How an authenticator and its browser do otherwise than they should. */
export interface Deviation {
  readonly origin?: string;
  readonly rpId?: string;
  readonly challenge?: string;
  readonly isVerified?: boolean;
  readonly counter?: number;
  readonly userHandle?: string;
}

interface CreationOptions {
  readonly challenge: string;
  readonly rp: { readonly id: string };
  readonly user: { readonly id: string };
}

/**
 * A browser with an authenticator of W3C's Web Authentication Level 2 that keeps discoverable ES256 credentials and
 * gives no attestation.
 */
export class SoftwareAuthenticator {
  readonly #origin: string;
  readonly #credentials: Credential[] = [];
  #counter = 0;

  constructor(origin: string) {
    this.#origin = new URL(origin).origin;
  }

  /** As `navigator.credentials.create` with these options. */
  create(options: CreationOptions, deviation: Deviation = {}) {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const { x = '', y = '' } = publicKey.export({ format: 'jwk' });
    const id = randomBytes(32);
    const rpId = deviation.rpId ?? options.rp.id;
    this.#credentials.push({ id, rpId, userHandle: options.user.id, privateKey });
    const coseKey = isoCBOR.encode(
      new Map<number, number | Uint8Array>([
        [1, 2],
        [3, -7],
        [-1, 1],
        [-2, new Uint8Array(Buffer.from(x, 'base64url'))],
        [-3, new Uint8Array(Buffer.from(y, 'base64url'))],
      ]),
    );
    const idLength = Buffer.alloc(2);
    idLength.writeUInt16BE(id.length);
    const attested = Buffer.concat([Buffer.alloc(16), idLength, id, coseKey]);
    const authData = new Uint8Array(Buffer.concat([this.#data(rpId, WITH_CREDENTIAL, deviation), attested]));
    const attestation = isoCBOR.encode(
      new Map<string, string | Map<string, string> | Uint8Array>([
        ['fmt', 'none'],
        ['attStmt', new Map()],
        ['authData', authData],
      ]),
    );
    return {
      ...named(id),
      response: {
        clientDataJSON: this.#clientData('webauthn.create', options.challenge, deviation),
        attestationObject: Buffer.from(attestation).toString('base64url'),
        transports: ['internal', 'hybrid'],
      },
    };
  }

  /** As `navigator.credentials.get` with these options, with the newest credential. */
  get(options: { readonly challenge: string; readonly rpId: string }, deviation: Deviation = {}) {
    const credential = this.#credentials.findLast(({ rpId }) => rpId === options.rpId);
    if (!credential) throw new Error(`there is no credential for ${options.rpId}`);
    const clientDataJSON = this.#clientData('webauthn.get', options.challenge, deviation);
    const authData = this.#data(deviation.rpId ?? credential.rpId, 0, deviation);
    const hash = createHash('sha256').update(Buffer.from(clientDataJSON, 'base64url')).digest();
    return {
      ...named(credential.id),
      response: {
        clientDataJSON,
        authenticatorData: authData.toString('base64url'),
        signature: sign('sha256', Buffer.concat([authData, hash]), credential.privateKey).toString('base64url'),
        userHandle: deviation.userHandle ?? credential.userHandle,
      },
    };
  }

  #data(rpId: string, flags: number, { isVerified = true, counter }: Deviation): Buffer {
    this.#counter += 1;
    const counted = Buffer.alloc(4);
    counted.writeUInt32BE(counter ?? this.#counter);
    const all = flags | PRESENT | (isVerified ? VERIFIED : 0);
    return Buffer.concat([createHash('sha256').update(rpId).digest(), Buffer.from([all]), counted]);
  }

  #clientData(type: string, challenge: string, deviation: Deviation): string {
    const data = {
      type,
      challenge: deviation.challenge ?? challenge,
      origin: deviation.origin ?? this.#origin,
      crossOrigin: false,
    };
    return Buffer.from(JSON.stringify(data)).toString('base64url');
  }
}

function named(id: Buffer) {
  const text = id.toString('base64url');
  return { id: text, rawId: text, type: 'public-key', clientExtensionResults: {} };
}
