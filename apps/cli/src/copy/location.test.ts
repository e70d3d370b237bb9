import { describe, expect, it } from 'vitest';
import { parseLocation, planCopy } from './location.ts';

describe('parseLocation', () => {
  it.each([
    ['-', { kind: 'stream' }],
    ['notes.txt', { kind: 'local', path: 'notes.txt' }],
    ['/a/b:c', { kind: 'local', path: '/a/b:c' }],
    ['./a:b', { kind: 'local', path: './a:b' }],
    ['a.b:c', { kind: 'local', path: 'a.b:c' }],
    ['cl-1a2b:/etc/hosts', { kind: 'capsule', capsule: 'cl-1a2b', path: '/etc/hosts' }],
    ['1a:dir/with:colon', { kind: 'capsule', capsule: '1a', path: 'dir/with:colon' }],
    ['1a:', { kind: 'capsule', capsule: '1a', path: '.' }],
  ])('%s', (text, location) => {
    expect(parseLocation(text)).toEqual(location);
  });

  it('refuses an empty path', () => {
    expect(() => parseLocation('')).toThrow('empty');
  });
});

describe('planCopy', () => {
  const local = parseLocation('here');
  const capsule = parseLocation('1a:there');

  it('knows the direction', () => {
    expect(planCopy(local, capsule).direction).toBe('upload');
    expect(planCopy(capsule, local).direction).toBe('download');
  });

  it('wants exactly one side in a capsule', () => {
    expect(() => planCopy(local, local)).toThrow('Neither path is in a capsule.');
    expect(() => planCopy(capsule, capsule)).toThrow('Both paths are in capsules.');
  });
});
