import { describe, expect, it } from 'vitest';
import { MAX_SLOT, slotOf } from './slot.ts';

describe('slotOf', () => {
  it('gives each slot its own addresses', () => {
    expect(slotOf(1)).toMatchObject({ hostIp: '10.11.0.1', hostSide: '10.12.0.2', namespaceSide: '10.12.0.3' });
    expect(slotOf(300)).toMatchObject({ hostIp: '10.11.1.44', hostSide: '10.12.2.88', namespaceSide: '10.12.2.89' });
    const all = Array.from({ length: MAX_SLOT }, (_, i) => slotOf(i + 1));
    expect(new Set(all.flatMap((slot) => [slot.hostIp, slot.hostSide, slot.namespaceSide])).size).toBe(3 * MAX_SLOT);
    expect(new Set(all.map((slot) => slot.uid)).size).toBe(MAX_SLOT);
  });

  it('keeps to the length that Linux allows for an interface', () => {
    expect(slotOf(MAX_SLOT).veth.length).toBeLessThanOrEqual(15);
    for (const wrong of [0, MAX_SLOT + 1, 1.5]) expect(() => slotOf(wrong)).toThrow(RangeError);
  });
});
