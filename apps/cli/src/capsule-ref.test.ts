import { describe, expect, it } from 'vitest';
import { matchCapsuleId } from './capsule-ref.ts';

const running = (id: string) => ({ id, status: 'running' as const });
const stopped = (id: string) => ({ id, status: 'stopped' as const });

describe('matchCapsuleId', () => {
  const capsules = [running('cl-abc1'), running('cl-abd2'), stopped('cl-abc9'), stopped('cl-xyz3')];

  it('takes an unambiguous beginning with and without the prefix', () => {
    expect(matchCapsuleId('abd', capsules)).toBe('cl-abd2');
    expect(matchCapsuleId('cl-abd', capsules)).toBe('cl-abd2');
  });

  it('prefers capsules that live over those that have ended', () => {
    expect(matchCapsuleId('abc', capsules)).toBe('cl-abc1');
    expect(matchCapsuleId('xyz', capsules)).toBe('cl-xyz3');
  });

  it('names the candidates when several match', () => {
    expect(() => matchCapsuleId('ab', capsules)).toThrow('several ids: cl-abc1, cl-abd2.');
  });

  it.each(['', 'nothing', 'c'])('finds nothing for "%s"', (ref) => {
    expect(() => matchCapsuleId(ref, capsules)).toThrow(`There is no capsule ${ref}.`);
  });
});
