import { describe, expect, it } from 'vitest';
import { ERROR_CATALOGUE, WrennError } from './errors.ts';

describe('WrennError', () => {
  it('fills the message and the remedy with its details', () => {
    const error = new WrennError('output_expired', { earliest: 4096 });
    expect(error.message).toBe('Output before byte 4096 is no longer kept.');
    expect(error.remedy).toContain('Attach from byte 4096');
    expect(error.http).toBe(410);
  });

  it('survives the way through a body', () => {
    const sent = new WrennError('capsule_not_found', { id: 'cl-x' });
    const received = WrennError.fromBody(JSON.parse(JSON.stringify(sent.toBody())));
    expect(received).toMatchObject({ code: 'capsule_not_found', message: sent.message, http: 404 });
  });

  it('does not take a code from outside the catalogue', () => {
    expect(WrennError.fromBody({ code: 'toString' })).toBeUndefined();
    expect(WrennError.fromBody({})).toBeUndefined();
  });

  it('says for every code what to do next', () => {
    for (const [code, entry] of Object.entries(ERROR_CATALOGUE)) {
      expect(entry.remedy.length, code).toBeGreaterThan(10);
      expect(entry.http, code).toBeGreaterThanOrEqual(400);
    }
  });
});
