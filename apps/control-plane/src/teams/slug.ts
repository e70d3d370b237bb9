import { randomBytes } from 'node:crypto';

/** A name for addresses that nobody chose: `xxxxxx-yyyyyy` in hex. */
export function newSlug(): string {
  return `${randomBytes(3).toString('hex')}-${randomBytes(3).toString('hex')}`;
}
