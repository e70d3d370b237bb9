import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readConnection } from '../connection.ts';
import { forgetLogin, readLogin, saveLogin } from './saved-logins.ts';

const KEY = `wrn_${'0123456789'.repeat(4)}`;
const HERE = 'http://localhost:8000';
const login = (changes = {}) => ({
  token: 'a.b.c',
  email: 'ada@example.com',
  name: 'Ada',
  team_id: null,
  expires_at: new Date(Date.now() + 60_000).toISOString(),
  ...changes,
});

let dir: string;
let env: Record<string, string>;
let file: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'wrenn-logins-'));
  env = { XDG_CONFIG_HOME: dir, WRENN_DIR: dir };
  file = join(dir, 'wrenn/logins.json');
});
afterEach(() => rmSync(dir, { recursive: true }));

describe('saved logins', () => {
  it('are kept for each address, for this user alone', () => {
    saveLogin(HERE, login(), env);
    saveLogin('https://wrenn.example', login({ email: 'grace@example.com' }), env);
    expect(readLogin(HERE, env)?.email).toBe('ada@example.com');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(forgetLogin(HERE, env)).toBe(true);
    expect(forgetLogin(HERE, env)).toBe(false);
    expect(readLogin(HERE, env)).toBeUndefined();
    expect(readLogin('https://wrenn.example', env)?.email).toBe('grace@example.com');
  });

  it('do not hold what the command has no use for', () => {
    saveLogin(HERE, { ...login(), role: 'owner' } as never, env);
    expect(readFileSync(file, 'utf8')).not.toContain('owner');
  });

  it('count until they expire', () => {
    saveLogin(HERE, login({ expires_at: new Date(Date.now() - 1).toISOString() }), env);
    expect(readLogin(HERE, env)).toBeUndefined();
  });

  it('say what to do with a damaged file', () => {
    saveLogin(HERE, login(), env);
    writeFileSync(file, '{');
    expect(() => readLogin(HERE, env)).toThrow(`${file} is damaged`);
  });
});

describe('readConnection', () => {
  it('prefers a key of the environment to a login, and a login to the key of this machine', () => {
    writeFileSync(join(dir, 'api-key'), `${KEY}\n`);
    expect(readConnection(env).credential).toBe(KEY);
    saveLogin(HERE, login(), env);
    expect(readConnection(env).credential).toBe('a.b.c');
    expect(readConnection({ ...env, WRENN_API_KEY: 'wrn_other' }).credential).toBe('wrn_other');
  });

  it('sends the key of this machine nowhere else', () => {
    writeFileSync(join(dir, 'api-key'), `${KEY}\n`);
    const elsewhere = { ...env, WRENN_BASE_URL: 'https://wrenn.example' };
    expect(() => readConnection(elsewhere)).toThrow('not logged in at https://wrenn.example');
  });
});
