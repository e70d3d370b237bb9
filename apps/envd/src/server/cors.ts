import type { IncomingMessage, ServerResponse } from 'node:http';

const EXPOSED = [
  'Grpc-Status',
  'Grpc-Message',
  'Grpc-Status-Details-Bin',
  'Cache-Control',
  'Content-Disposition',
  'Content-Encoding',
  'Content-Range',
  'ETag',
  'Location',
  'Wrenn-Error',
  'X-Content-Type-Options',
].join(', ');
const MAX_AGE_SECONDS = 7200;

/** Lets pages of any origin call: the access token is what protects a guest. True when the request was a preflight. */
export function answerCors(request: IncomingMessage, response: ServerResponse): boolean {
  if (request.headers.origin === undefined) return false;
  response.setHeader('Access-Control-Allow-Origin', '*');
  response.setHeader('Access-Control-Expose-Headers', EXPOSED);
  if (request.method !== 'OPTIONS') return false;
  response.writeHead(204, {
    'Access-Control-Allow-Methods': 'HEAD, GET, POST, PUT, PATCH, DELETE',
    'Access-Control-Allow-Headers': request.headers['access-control-request-headers'] ?? '*',
    'Access-Control-Max-Age': MAX_AGE_SECONDS,
  });
  response.end();
  return true;
}

/**
 * Whether a request comes from a page of another machine, or by a name that is not this machine's. An envd on a
 * developer's machine may have no token yet; without this check any page that the developer opens could use it.
 */
export function isForeignPage({ headers }: IncomingMessage): boolean {
  if (headers.origin === undefined) return false;
  return !isLocal(hostOf(headers.origin)) || !isLocal(hostOf(`http://${headers.host}`));
}

function hostOf(url: string): string {
  return URL.parse(url)?.hostname ?? '';
}

function isLocal(host: string): boolean {
  return host === 'localhost' || host.endsWith('.localhost') || host === '[::1]' || /^127(\.\d+){3}$/.test(host);
}
