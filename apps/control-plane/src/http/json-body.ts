import { WrennError } from '@wrenn/protocol/errors';
import type { FastifyInstance } from 'fastify';

/** No request needs more levels; far below what overflows the stack of whatever walks through the value. */
const MAX_DEPTH = 100;

/** Reads JSON as it comes from clients: some name it as the type of a body that they do not send. */
export function acceptJson(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined);
    else if (isDeeperThan(MAX_DEPTH, body as string)) {
      done(new WrennError('invalid_request', { problem: `the body is nested deeper than ${MAX_DEPTH} levels` }));
    } else parse(request, body as string, done);
  });
}

/** Counts brackets outside of texts. */
function isDeeperThan(limit: number, json: string): boolean {
  let depth = 0;
  let isText = false;
  for (let index = 0; index < json.length; index++) {
    const char = json[index];
    if (isText) {
      if (char === '\\') index++;
      else if (char === '"') isText = false;
    } else if (char === '"') isText = true;
    else if (char === '[' || char === '{') {
      if (++depth > limit) return true;
    } else if (char === ']' || char === '}') depth--;
  }
  return false;
}
