import { WrennError } from '@wrenn/protocol/errors';
import { expect, it } from 'vitest';
import { toCatalogue } from './error-handler.ts';

it('answers why something failed, also when freeing it failed too', () => {
  const why = new WrennError('guest_unreachable', { id: 'cl-1', problem: 'the connection to it broke' });
  const freeing = new WrennError('host_unavailable');
  expect(toCatalogue(new SuppressedError(new Error('once more'), new SuppressedError(freeing, why)))).toBe(why);
  expect(toCatalogue(new SuppressedError(why, new Error('a defect'))).code).toBe('internal_error');
});
