import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readConnection } from './connection.ts';

const KEY = `wrn_${'0123456789'.repeat(4)}`;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'wrenn-connection-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

describe('readConnection', () => {
  it('takes what the environment says', () => {
    const env = { WRENN_DIR: dir, WRENN_BASE_URL: 'https://wrenn.example/', WRENN_API_KEY: KEY };
    expect(readConnection(env)).toEqual({ baseUrl: 'https://wrenn.example', credential: KEY });
  });

  it('falls back to the key that the platform wrote, and to its usual address', () => {
    writeFileSync(join(dir, 'api-key'), `${KEY}\n`);
    expect(readConnection({ WRENN_DIR: dir })).toEqual({ baseUrl: 'http://localhost:8000', credential: KEY });
  });

  it('says what to do when there is no key', () => {
    expect(() => readConnection({ WRENN_DIR: dir })).toThrow(`${dir}/api-key does not exist`);
    writeFileSync(join(dir, 'api-key'), 'something else');
    expect(() => readConnection({ WRENN_DIR: dir })).toThrow('does not hold an API key');
  });

  it('refuses an address that is none', () => {
    expect(() => readConnection({ WRENN_DIR: dir, WRENN_BASE_URL: 'localhost:8000' })).toThrow('WRENN_BASE_URL');
  });
});
