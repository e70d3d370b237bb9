import type { IncomingMessage, ServerResponse } from 'node:http';
import { WrennError } from '@wrenn/protocol/errors';
import { ERROR_HEADER, errorHeader, toWrennError } from '../errors.ts';

const MAX_JSON_BYTES = 1024 * 1024;

export function sendJson(response: ServerResponse, body: unknown): void {
  response.setHeader('Content-Type', 'application/json; charset=utf-8');
  response.setHeader('Cache-Control', 'no-store');
  response.end(JSON.stringify(body));
}

/** E2B's body, whose code is the HTTP status; the catalogue's code goes into a header. */
export function sendError(response: ServerResponse, error: unknown): void {
  const known = toWrennError(error);
  if (response.headersSent) {
    // The status is out; only a broken connection still says that this answer is not whole.
    response.destroy();
    return;
  }
  for (const name of ['Content-Length', 'Content-Encoding', 'Content-Disposition', 'ETag', 'Last-Modified']) {
    response.removeHeader(name);
  }
  response.statusCode = known.http;
  response.setHeader('X-Content-Type-Options', 'nosniff');
  response.setHeader(ERROR_HEADER, errorHeader(known));
  sendJson(response, { code: known.http, message: known.message });
}

/** The JSON of a request's body; an empty body is an empty object. Fails with `invalid_request` or `too_large`. */
export async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    size += chunk.length;
    if (size > MAX_JSON_BYTES) throw new WrennError('too_large', { limit: MAX_JSON_BYTES });
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  if (text.trim() === '') return {};
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new WrennError('invalid_request', { problem: 'the body is not valid JSON' }, { cause: error });
  }
}
