import type { IncomingHttpHeaders } from 'node:http';

/** A port of a capsule, as a request names it. */
export interface EdgeTarget {
  readonly capsuleId: string;
  /** As it was written; it may be out of range. */
  readonly port: number;
}

const HOST = /^(\d{1,6})-(cl-[a-z0-9]+)\./i;

/**
 * The port of a capsule that a request is for, or undefined when it is for this server: by the name of the host
 * (`{port}-{capsule}.{anything}`), or by E2B's headers on any name.
 */
export function readTarget(headers: IncomingHttpHeaders): EdgeTarget | undefined {
  const { 'e2b-sandbox-id': id, 'e2b-sandbox-port': port } = headers;
  if (typeof id === 'string' && typeof port === 'string') {
    return { capsuleId: id.toLowerCase(), port: /^\d{1,6}$/.test(port) ? Number(port) : Number.NaN };
  }
  const match = HOST.exec(headers.host ?? '');
  return match?.[1] && match[2] ? { capsuleId: match[2].toLowerCase(), port: Number(match[1]) } : undefined;
}
