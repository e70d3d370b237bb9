import { randomBytes } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createFile } from '@wrenn/config/atomic-file';
import { KeyRing } from './key-ring.ts';

/** What this platform signs and encrypts with. */
export interface Secrets {
  /** Signs the tokens of logins; at least 32 bytes. */
  readonly jwtSecret: Uint8Array;
  /** Encrypts secrets in the database. */
  readonly keyRing: KeyRing;
}

export interface GivenSecrets {
  /** JWT_SECRET. */
  readonly jwtSecret: string | undefined;
  /** WRENN_ENCRYPTION_KEY: each 64 hex characters; the first encrypts, all decrypt. */
  readonly encryptionKeys: readonly string[] | undefined;
}

/**
 * The secrets that the environment gives; what it does not give is made once and kept in WRENN_DIR/secrets, readable by
 * this program alone. Control planes of one database need the same ones.
 *
 * @throws Error when a file holds something else
 */
export async function openSecrets(dir: string, { jwtSecret, encryptionKeys }: GivenSecrets): Promise<Secrets> {
  const folder = join(dir, 'secrets');
  const jwt = jwtSecret ?? (await readOrMake(join(folder, 'jwt-secret')));
  const keys = encryptionKeys ?? [await readOrMake(join(folder, 'encryption-key'))];
  return { jwtSecret: Buffer.from(jwt), keyRing: new KeyRing(keys.map((key) => Buffer.from(key, 'hex'))) };
}

async function readOrMake(file: string): Promise<string> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  // Of two first starts one makes the file, and both read it.
  await createFile(file, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  const text = (await readFile(file, 'utf8')).trim();
  if (!/^[0-9a-f]{64}$/.test(text)) throw new Error(`${file} does not hold a key of 64 hex characters`);
  return text;
}
