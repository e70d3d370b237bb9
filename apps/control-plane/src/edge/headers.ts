import type { IncomingMessage } from 'node:http';
import { apiKeyBody } from '@wrenn/protocol/ids';

/** Headers of one connection, which a proxy does not pass on (RFC 9110, 7.6.1), and some that only name this proxy. */
const NOT_PASSED_ON: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);
/** This server has answered it, and the target. */
const OURS: ReadonlySet<string> = new Set(['expect', 'e2b-sandbox-id', 'e2b-sandbox-port']);

export type HeaderPairs = [name: string, value: string][];

/** The key of the platform that a request carries. Credentials of another form belong to the program in the guest. */
export function readPlatformKey({ headers }: IncomingMessage): string | undefined {
  const key = headers['x-api-key'];
  if (typeof key === 'string' && apiKeyBody(key.trim()) !== undefined) return key;
  const bearer = bearerOf(headers.authorization);
  return bearer !== undefined && apiKeyBody(bearer) !== undefined ? bearer : undefined;
}

/** The headers of a client's request for the guest: without the platform's credentials, with where it came from. */
export function requestHeaders(request: IncomingMessage): HeaderPairs {
  const kept = endToEnd(request).filter(
    ([name, value]) => !OURS.has(name.toLowerCase()) && !isCredential(name, value) && !isForwarded(name),
  );
  const { headers, socket } = request;
  const before = headers['x-forwarded-for'];
  const from = socket.remoteAddress ?? 'unknown';
  return [
    ...kept,
    ['X-Forwarded-For', before === undefined ? from : `${before}, ${from}`],
    ['X-Forwarded-Host', single(headers['x-forwarded-host']) ?? headers.host ?? ''],
    ['X-Forwarded-Proto', single(headers['x-forwarded-proto']) ?? 'http'],
  ];
}

/** The headers of a message without those of its connection, as they were written. */
export function endToEnd({ rawHeaders, headers }: IncomingMessage): HeaderPairs {
  const named = new Set((headers.connection ?? '').split(',').map((name) => name.trim().toLowerCase()));
  const pairs: HeaderPairs = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const [name = '', value = ''] = rawHeaders.slice(i, i + 2);
    const lower = name.toLowerCase();
    if (!NOT_PASSED_ON.has(lower) && !named.has(lower)) pairs.push([name, value]);
  }
  return pairs;
}

function isCredential(name: string, value: string): boolean {
  switch (name.toLowerCase()) {
    case 'x-api-key':
      return apiKeyBody(value.trim()) !== undefined;
    case 'authorization': {
      const bearer = bearerOf(value);
      return bearer !== undefined && apiKeyBody(bearer) !== undefined;
    }
    default:
      return false;
  }
}

function isForwarded(name: string): boolean {
  return /^x-forwarded-(for|host|proto)$/i.test(name);
}

function bearerOf(authorization: string | undefined): string | undefined {
  return /^Bearer\s+(\S+)\s*$/i.exec(authorization ?? '')?.[1];
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}
