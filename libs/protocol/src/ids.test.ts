import { describe, expect, it } from 'vitest';
import { apiKeyBody, isId, newApiKey, newId } from './ids.ts';

describe('newId', () => {
  it('is the prefix and 25 base-36 characters', () => {
    for (let i = 0; i < 100; i++) expect(newId('cl')).toMatch(/^cl-[0-9a-z]{25}$/);
  });
});

describe('isId', () => {
  it('tells prefixes apart', () => {
    const id = newId('team');
    expect(isId('team', id)).toBe(true);
    expect(isId('cl', id)).toBe(false);
    expect(isId('team', `${id}0`)).toBe(false);
    expect(isId('team', id.toUpperCase())).toBe(false);
  });
});

describe('apiKeyBody', () => {
  it('is the same for both spellings', () => {
    const key = newApiKey();
    expect(apiKeyBody(key)).toHaveLength(40);
    expect(apiKeyBody(key.replace('wrn_', 'e2b_'))).toBe(apiKeyBody(key));
    expect(apiKeyBody(`${key}a`)).toBeUndefined();
  });
});
