import { describe, expect, it } from 'vitest';
import { ArgumentError, readArguments } from './arguments.ts';

function problem(...args: string[]): string {
  try {
    readArguments(args);
  } catch (error) {
    if (error instanceof ArgumentError) return error.message;
    throw error;
  }
  return 'none';
}

describe('readArguments', () => {
  it('reads what the original documents print', () => {
    expect(readArguments(['--register', 'abc', '--address', '10.0.1.5:50051'])).toEqual({
      ...{ kind: 'run', register: 'abc', address: '10.0.1.5:50051' },
    });
    expect(readArguments(['--address', '10.0.1.5:50051'])).toEqual({
      ...{ kind: 'run', register: undefined, address: '10.0.1.5:50051' },
    });
    expect(readArguments([])).toEqual({ kind: 'run', register: undefined, address: undefined });
    expect(readArguments(['--register=abc', '--help'])).toEqual({ kind: 'help' });
    expect(readArguments(['--version'])).toEqual({ kind: 'version' });
  });

  it.each(['10.0.1.5', 'node:0', 'node:70000', 'http://node:1', ':50051', 'fd00::5:50051', 'a b:1', ''])(
    'refuses the address %j and shows a right one',
    (address) => {
      expect(problem('--address', address)).toMatch(/--address is .* such as 10\.0\.1\.5:50051/);
    },
  );

  it.each(['10.0.1.5:50051', '[fd00::5]:50051', 'node1.example.com:1'])('takes the address %s', (address) => {
    expect(readArguments(['--address', address])).toMatchObject({ address });
  });

  it('names what it does not know, and what lacks its value', () => {
    expect(problem('--registr', 'abc')).toMatch(/'--registr'.*--help/);
    expect(problem('extra')).toMatch(/'extra'.*--help/);
    expect(problem('--register')).toMatch(/--register.*--help/);
    expect(problem('--register', ' ')).toMatch(/--register needs/);
    expect(problem('--register', '--address')).toMatch(/--register.*--help/);
  });
});
