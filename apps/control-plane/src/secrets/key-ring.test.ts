import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { KeyRing } from './key-ring.ts';

describe('KeyRing', () => {
  const [older, newer] = [randomBytes(32), randomBytes(32)];

  it('gives back what it was given, and never the same twice', () => {
    const ring = new KeyRing([older]);
    const sealed = ring.encrypt('geheim', 'channel:a');
    expect(ring.decrypt(sealed, 'channel:a')).toBe('geheim');
    expect(sealed).not.toContain('geheim');
    expect(ring.encrypt('geheim', 'channel:a')).not.toBe(sealed);
  });

  it('reads what an older key encrypted, and says that it is stale', () => {
    const sealed = new KeyRing([older]).encrypt('x', 'p');
    const ring = new KeyRing([newer, older]);
    expect(ring.decrypt(sealed, 'p')).toBe('x');
    expect(ring.isStale(sealed)).toBe(true);
    expect(ring.isStale(ring.encrypt('x', 'p'))).toBe(false);
  });

  it('refuses what was changed, moved, or encrypted by a key that it lacks', () => {
    const ring = new KeyRing([older]);
    const sealed = ring.encrypt('x', 'p');
    const other = sealed.at(-3) === 'A' ? 'B' : 'A';
    expect(() => ring.decrypt(`${sealed.slice(0, -3)}${other}${sealed.slice(-2)}`, 'p')).toThrow();
    expect(() => ring.decrypt(sealed, 'q')).toThrow();
    expect(() => new KeyRing([newer]).decrypt(sealed, 'p')).toThrow(/not in WRENN_ENCRYPTION_KEY/);
  });
});
