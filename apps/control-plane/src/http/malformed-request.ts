import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { type ErrorCode, WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import { toRestError } from '@wrenn/protocol/rest/error';

/** What Node's parser of HTTP says, as the catalogue does. */
const KNOWN: Readonly<Record<string, ErrorCode>> = {
  HPE_HEADER_OVERFLOW: 'headers_too_large',
  ERR_HTTP_REQUEST_TIMEOUT: 'request_timeout',
};

/** Answers what cannot be read as a request, in the catalogue's form, and ends the connection. */
export function answerMalformed(error: NodeJS.ErrnoException, socket: Socket): void {
  // On its way already may be the answer of the request before, which this would be taken for a part of.
  const { _httpMessage: answer } = socket as { _httpMessage?: { headersSent: boolean } | null };
  if (error.code === 'ECONNRESET' || !socket.writable || answer?.headersSent) {
    socket.destroy();
    return;
  }
  const code = KNOWN[error.code ?? ''];
  const known = code ? new WrennError(code) : new WrennError('invalid_request', { problem: 'it is not valid HTTP' });
  const id = newId('req');
  const body = JSON.stringify({ error: toRestError(known, id) });
  const head = [
    `HTTP/1.1 ${known.http} ${STATUS_CODES[known.http]}`,
    'content-type: application/json; charset=utf-8',
    `content-length: ${Buffer.byteLength(body)}`,
    `x-request-id: ${id}`,
    'connection: close',
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
}
