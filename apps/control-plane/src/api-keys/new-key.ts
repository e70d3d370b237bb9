import { createHash } from 'node:crypto';
import { apiKeyBody, newApiKey } from '@wrenn/protocol/ids';

/** How many characters of a key are kept as they are, to tell keys apart. */
const PREFIX_LENGTH = 10;

/** What the database keeps of a key. */
export interface KeptKey {
  readonly keyHash: string;
  readonly keyPrefix: string;
}

/** A key, which is shown once, and what is kept of it. */
export function makeKey(): { readonly key: string; readonly kept: KeptKey } {
  const key = newApiKey();
  return { key, kept: keptOf(key) };
}

export function keptOf(key: string): KeptKey {
  return { keyHash: hashKey(apiKeyBody(key) ?? ''), keyPrefix: key.slice(0, PREFIX_LENGTH) };
}

/** @param keyBody 40 hex characters, the same in both spellings */
export function hashKey(keyBody: string): string {
  return createHash('sha256').update(keyBody).digest('hex');
}
