import { describe, expect, it } from 'vitest';
import { ERROR_CATALOGUE, type ErrorCode, WrennError } from '../errors.ts';
import { errorResponseSchema, toRestError } from './error.ts';

describe('toRestError', () => {
  it('gives the family as code and the exact code as reason', () => {
    const error = toRestError(new WrennError('path_not_found', { path: '/x' }), 'req-1');
    expect(error).toMatchObject({ code: 'not_found', reason: 'path_not_found', request_id: 'req-1' });
    expect(error.message).toContain('/x');
  });

  it('fits its schema and comes back as the same error, for every code', () => {
    for (const code of Object.keys(ERROR_CATALOGUE) as ErrorCode[]) {
      const sent = new WrennError(code, { id: 'cl-1', problem: 'p' });
      const { error } = errorResponseSchema.parse(JSON.parse(JSON.stringify({ error: toRestError(sent) })));
      expect(WrennError.fromBody(error)).toMatchObject({ code, message: sent.message });
    }
  });
});
