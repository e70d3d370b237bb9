import { describe, expect, it } from 'vitest';
import { parseRange } from './byte-range.ts';
import { bodyEncoding, chooseEncoding } from './content-encoding.ts';

describe('chooseEncoding', () => {
  it.each([
    [undefined, 'identity'],
    ['', 'identity'],
    ['gzip', 'gzip'],
    ['GZIP, deflate, br', 'gzip'],
    ['gzip;q=0', 'identity'],
    ['gzip;q=0.5, identity;q=0.9', 'identity'],
    ['*', 'identity'],
    ['*;q=0, gzip', 'gzip'],
    ['identity;q=0, *', 'gzip'],
    ['br', 'identity'],
  ] as const)('answers %j with %s', (header, expected) => {
    expect(chooseEncoding(header, true)).toBe(expected);
  });

  it('refuses when nothing is left', () => {
    expect(() => chooseEncoding('identity;q=0', true)).toThrow('No encoding');
    expect(() => chooseEncoding('*;q=0', true)).toThrow('No encoding');
    expect(() => chooseEncoding('gzip, identity;q=0', false)).toThrow('identity');
    expect(chooseEncoding('gzip', false)).toBe('identity');
  });
});

describe('bodyEncoding', () => {
  it('knows gzip and identity', () => {
    expect([undefined, 'identity', ' GZip '].map(bodyEncoding)).toEqual(['identity', 'identity', 'gzip']);
    expect(() => bodyEncoding('deflate')).toThrow('deflate');
  });
});

describe('parseRange', () => {
  it.each([
    ['bytes=0-0', { start: 0, end: 0 }],
    ['bytes=5-', { start: 5, end: 9 }],
    ['bytes=-3', { start: 7, end: 9 }],
    ['bytes=-30', { start: 0, end: 9 }],
    ['bytes=2-100', { start: 2, end: 9 }],
    ['bytes=5-2', undefined],
    ['bytes=-', undefined],
    ['bytes=0-1,3-4', undefined],
    ['lines=0-1', undefined],
    [undefined, undefined],
  ])('reads %j of ten bytes', (header, expected) => {
    expect(parseRange(header, 10)).toEqual(expected);
  });

  it.each(['bytes=10-', 'bytes=99-100', 'bytes=-0'])('refuses %s of ten bytes', (header) => {
    expect(() => parseRange(header, 10)).toThrow('10 bytes');
  });
});
