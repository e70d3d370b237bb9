import { createHash, timingSafeEqual } from 'node:crypto';

/** Compares in a time that tells nothing about the secret; hashes first, because lengths may differ. */
export function secretsEqual(expected: string, given: string): boolean {
  return timingSafeEqual(digest(expected), digest(given));
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

export interface SignedRequest {
  /** As the request gave it, before it is resolved; empty when it gave none. */
  path: string;
  operation: 'read' | 'write';
  /** As the request gave it; empty when it gave none. */
  user: string;
  /** Unix time in seconds. */
  expiration: number | undefined;
}

/** E2B's signature of a link to one file: `v1_` and unpadded base64 of a SHA-256. */
export function signRequest(request: SignedRequest, token: string): string {
  const parts = [request.path, request.operation, request.user, token];
  if (request.expiration !== undefined) parts.push(String(request.expiration));
  return `v1_${createHash('sha256').update(parts.join(':')).digest('base64').replaceAll('=', '')}`;
}
