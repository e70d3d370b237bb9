import { InvalidArgumentError } from 'commander';
import { describe, expect, it } from 'vitest';
import {
  collectEnv,
  collectLabel,
  parseSeconds,
  parseSecondsOrNone,
  parseSizeMb,
  parseSwitch,
  wholeNumber,
} from './options.ts';

describe('parseSizeMb', () => {
  it.each([
    ['512', 512],
    ['512M', 512],
    ['2G', 2048],
    ['1.5GiB', 1536],
    ['256mb', 256],
  ])('%s is %d MiB', (text, sizeMb) => {
    expect(parseSizeMb(text)).toBe(sizeMb);
  });

  it.each(['', '0', '-1', '2T', '1.2', 'lots'])('refuses "%s"', (text) => {
    expect(() => parseSizeMb(text)).toThrow(InvalidArgumentError);
  });
});

describe('parseSeconds', () => {
  it.each([
    ['90', 90],
    ['90s', 90],
    ['15m', 900],
    ['2h', 7200],
    ['1d', 86_400],
  ])('%s is %d s', (text, seconds) => {
    expect(parseSeconds(text)).toBe(seconds);
  });

  it.each(['', '1w', '1.5h', '-3'])('refuses "%s"', (text) => {
    expect(() => parseSeconds(text)).toThrow(InvalidArgumentError);
  });
});

describe('parseSecondsOrNone', () => {
  it('takes none beside times', () => {
    expect([parseSecondsOrNone('none'), parseSecondsOrNone('2m')]).toEqual(['none', 120]);
  });
});

describe('parseSwitch', () => {
  it('takes true and false only', () => {
    expect([parseSwitch('true'), parseSwitch('false')]).toEqual([true, false]);
    expect(() => parseSwitch('cl-1a2b')).toThrow('Write it alone at the end');
  });
});

describe('wholeNumber', () => {
  it('takes numbers from its least on', () => {
    expect(wholeNumber(1)('4')).toBe(4);
    expect(() => wholeNumber(1)('0')).toThrow('from 1 on');
    expect(() => wholeNumber(0)('0x10')).toThrow(InvalidArgumentError);
  });
});

describe('collectEnv', () => {
  it('collects values, with "=" in them, and takes bare names from the environment', () => {
    const first = collectEnv('A=1=2', {}, {});
    expect(collectEnv('B', first, { B: 'two' })).toEqual({ A: '1=2', B: 'two' });
  });

  it('refuses a bare name that is not set, and an empty name', () => {
    expect(() => collectEnv('B', {}, {})).toThrow('B is not set here');
    expect(() => collectEnv('=1', {}, {})).toThrow(InvalidArgumentError);
  });
});

describe('collectLabel', () => {
  it('wants a name and a value', () => {
    expect(collectLabel('a=', { b: 'c' })).toEqual({ a: '', b: 'c' });
    expect(() => collectLabel('a')).toThrow(InvalidArgumentError);
  });
});
