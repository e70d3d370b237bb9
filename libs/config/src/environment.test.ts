import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { absolutePath, EnvironmentError, listenAddress, readEnvironment } from './environment.ts';

const shape = {
  WRENN_DIR: absolutePath.default('/var/lib/wrenn'),
  LISTEN: listenAddress.default({ host: undefined, port: 8000 }),
  N: z.coerce.number().int().optional(),
};

describe('readEnvironment', () => {
  it('fills defaults, also for empty values', () => {
    expect(readEnvironment(shape, { WRENN_DIR: '' })).toEqual({
      WRENN_DIR: '/var/lib/wrenn',
      LISTEN: { host: undefined, port: 8000 },
    });
  });

  it('reads addresses of each form', () => {
    expect(readEnvironment(shape, { LISTEN: ':80' }).LISTEN).toEqual({ host: undefined, port: 80 });
    expect(readEnvironment(shape, { LISTEN: '127.0.0.1:0' }).LISTEN).toEqual({ host: '127.0.0.1', port: 0 });
    expect(readEnvironment(shape, { LISTEN: '[::1]:9' }).LISTEN).toEqual({ host: '::1', port: 9 });
  });

  it('names everything that is wrong in one message', () => {
    const read = () => readEnvironment(shape, { WRENN_DIR: 'here', LISTEN: '8000', N: 'x' });
    expect(read).toThrow(EnvironmentError);
    expect(read).toThrow(/WRENN_DIR.*\n.*LISTEN.*\n.*N/);
  });
});
