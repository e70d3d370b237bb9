import { WrennError } from '@wrenn/protocol/errors';
import { toRestError } from '@wrenn/protocol/rest/error';
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import { isDatabaseOutage, isRefusedData } from '../database/database.ts';

/** Answers every error that a route throws in the catalogue's form. What is not in the catalogue is only logged. */
export function handleError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const known = toCatalogue(error, request);
  if (known.http >= 500) request.log.error({ err: error }, known.message);
  else request.log.info({ code: known.code, err: known.cause }, known.message);
  // The answer is on its way already: cutting it off is the only way left to tell that it is not whole.
  if (reply.sent || reply.raw.headersSent) {
    reply.raw.destroy();
    return;
  }
  const retryAfterS = retryAfter(known);
  if (retryAfterS !== undefined) reply.header('retry-after', retryAfterS);
  void reply
    .code(known.http)
    .type('application/json')
    // The route may have set one for what it meant to send.
    .serializer(JSON.stringify)
    .send({ error: toRestError(known, request.id) });
}

/** In seconds; undefined: repeating it as it is does not help. */
function retryAfter({ http, retryable, details }: WrennError): number | undefined {
  if (typeof details.retry_after_s === 'number') return details.retry_after_s;
  return http === 503 && retryable ? 1 : undefined;
}

/** Answers what is refused before any hook runs: a path that cannot be decoded, or is too long. */
export function answerUnroutable(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  reply.header('x-request-id', request.id);
  handleError(error, request, reply);
}

export function handleUnknownRoute(request: FastifyRequest, reply: FastifyReply): void {
  const error = new WrennError('not_found', { what: `${request.method} ${request.url.split('?')[0]}` });
  void reply.code(error.http).send({ error: toRestError(error, request.id) });
}

/** The error of the catalogue for whatever was thrown while a request was served. */
export function toCatalogue(error: unknown, request?: FastifyRequest): WrennError {
  if (error instanceof WrennError) return error;
  // That freeing something failed too says less than why it was freed.
  if (error instanceof SuppressedError) return toCatalogue(error.suppressed, request);
  if (isDatabaseOutage(error)) return new WrennError('database_unavailable', {}, { cause: error });
  if (isRefusedData(error)) {
    return new WrennError(
      'invalid_request',
      { problem: 'a text holds what cannot be kept: a NUL, half a character, or a day that there is not' },
      { cause: error },
    );
  }
  if (hasZodFastifySchemaValidationErrors(error)) {
    const problems = error.validation.map(({ instancePath, message }) => {
      const field = instancePath.replace(/^\//, '').replaceAll('/', '.');
      return field ? `${field}: ${message}` : `the ${error.validationContext ?? 'request'}: ${message}`;
    });
    return new WrennError('invalid_request', { problem: problems.join('; ').slice(0, 1000) }, { cause: error });
  }
  return fromFastify(error, request) ?? new WrennError('internal_error', {}, { cause: error });
}

function fromFastify(error: unknown, request: FastifyRequest | undefined): WrennError | undefined {
  const { code, statusCode, message } = error as Partial<FastifyError>;
  const cause = { cause: error };
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new WrennError('too_large', { limit: request?.routeOptions.bodyLimit ?? 0 }, cause);
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
    case 'FST_INVALID_MULTIPART_CONTENT_TYPE': {
      const type = request?.headers['content-type'] ?? 'none';
      return new WrennError('invalid_request', { problem: `the content type ${type} is not taken here` }, cause);
    }
    case 'FST_ERR_CTP_INVALID_JSON_BODY':
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
      return new WrennError('invalid_request', { problem: 'the body is not valid JSON' }, cause);
    default:
      // Fastify's own refusals carry a status; their messages are made for clients.
      if (statusCode === undefined || statusCode < 400 || statusCode >= 500) return undefined;
      return new WrennError('invalid_request', { problem: message ?? 'malformed' }, cause);
  }
}
