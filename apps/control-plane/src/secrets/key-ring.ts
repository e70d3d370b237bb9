import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/**
 * Encrypts short secrets for the database with AES-256-GCM, each bound to the place that it stands in. The first key
 * encrypts; all decrypt, so that a key is rotated by putting a new one before it and encrypting again what is stale.
 */
export class KeyRing {
  readonly #keys: ReadonlyMap<string, Buffer>;
  readonly #currentId: string;

  /** @param keys of 32 bytes each, at least one; the newest first */
  constructor(keys: readonly Buffer[]) {
    for (const key of keys) if (key.length !== KEY_BYTES) throw new Error('an encryption key has 32 bytes');
    const [current] = keys;
    if (!current) throw new Error('there is no encryption key');
    this.#keys = new Map(keys.map((key) => [idOf(key), key]));
    this.#currentId = idOf(current);
  }

  /** @param place what the secret belongs to, such as `channel:ch-…:url`: it decrypts for that place only */
  encrypt(text: string, place: string): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv('aes-256-gcm', this.#key(this.#currentId), nonce).setAAD(Buffer.from(place));
    const body = Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    return `${this.#currentId}.${body.toString('base64url')}`;
  }

  /** @throws Error when its key is not in the ring, or it was changed or belongs to another place */
  decrypt(sealed: string, place: string): string {
    const [id = '', body = ''] = sealed.split('.');
    const bytes = Buffer.from(body, 'base64url');
    const decipher = createDecipheriv('aes-256-gcm', this.#key(id), bytes.subarray(0, NONCE_BYTES), {
      authTagLength: TAG_BYTES,
    })
      .setAAD(Buffer.from(place))
      .setAuthTag(bytes.subarray(-TAG_BYTES));
    return Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]).toString('utf8');
  }

  /** Whether another key than the first encrypted it. */
  isStale(sealed: string): boolean {
    return !sealed.startsWith(`${this.#currentId}.`);
  }

  #key(id: string): Buffer {
    const key = this.#keys.get(id);
    if (!key) throw new Error(`the encryption key ${id} is not in WRENN_ENCRYPTION_KEY`);
    return key;
  }
}

function idOf(key: Buffer): string {
  return createHash('sha256').update(key).digest('hex').slice(0, 8);
}
