import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { PASSWORD_COST, Passwords } from './passwords.ts';

const CHEAP = { logN: 8, r: 8, p: 1 };
const hashOf = (hash: string | undefined) => async () => hash;

describe('a password', () => {
  it('matches its own hash only, each of which is another', async () => {
    const passwords = new Passwords(CHEAP);
    const [one, two] = [await passwords.hash('a password'), await passwords.hash('a password')];
    expect(one).not.toBe(two);
    expect(await passwords.compare('a password', hashOf(one))).toEqual({ matches: true, isStale: false });
    expect(await passwords.compare('a password', hashOf(two))).toMatchObject({ matches: true });
    expect(await passwords.compare('A password', hashOf(one))).toEqual({ matches: false, isStale: false });
    expect(await passwords.compare('a password', hashOf(undefined))).toEqual({ matches: false, isStale: false });
  });

  it('is the same however its letters are composed', async () => {
    const passwords = new Passwords(CHEAP);
    const hash = await passwords.hash('caf\u00e9 caf\u00e9');
    expect(await passwords.compare('cafe\u0301 cafe\u0301', hashOf(hash))).toMatchObject({ matches: true });
  });

  it('is stale when it was hashed at another cost, which the hash says', async () => {
    const hash = await new Passwords({ logN: 9, r: 8, p: 2 }).hash('a password');
    expect(hash).toMatch(/^\$scrypt\$ln=9,r=8,p=2\$[\w-]{22}\$[\w-]{43}$/);
    expect(await new Passwords(CHEAP).compare('a password', hashOf(hash))).toEqual({ matches: true, isStale: true });
  });

  it('is not compared with what is no hash', async () => {
    await expect(new Passwords(CHEAP).compare('a password', hashOf('$2b$12$nonsense'))).rejects.toThrow('unknown form');
  });
});

describe('hashing', () => {
  it('takes as long where there is no account', async () => {
    const passwords = new Passwords(PASSWORD_COST);
    const hash = await passwords.hash('a password');
    const timesMs: [number[], number[]] = [[], []];
    for (let round = 0; round < 5; round++) {
      for (const [index, stored] of [hash, undefined].entries()) {
        const before = process.cpuUsage();
        await passwords.compare('another password', hashOf(stored));
        const { user, system } = process.cpuUsage(before);
        timesMs[index as 0 | 1].push((user + system) / 1000);
      }
    }
    // The quickest of several is what the machine can do, whatever else it did meanwhile.
    const [known, unknown] = timesMs.map((times) => Math.min(...times));
    expect((unknown ?? 0) / (known ?? 1)).toBeGreaterThan(0.6);
    expect((unknown ?? 0) / (known ?? 1)).toBeLessThan(1.7);
  });

  it('is done for two at once, keeps some waiting, and refuses who would wait too long', async () => {
    const passwords = new Passwords(CHEAP);
    let running = 0;
    let most = 0;
    const open = Promise.withResolvers<void>();
    const hold = async () => {
      running += 1;
      most = Math.max(most, running);
      await open.promise;
      running -= 1;
      return undefined;
    };
    const held = Array.from({ length: 42 }, () => passwords.compare('a password', hold));
    await delay(0);
    await expect(passwords.hash('a password')).rejects.toMatchObject({ code: 'rate_limited' });
    open.resolve();
    await Promise.all(held);
    expect(most).toBe(2);
    expect(await passwords.hash('a password')).toContain('$scrypt$');
  });

  it('frees its place when what it waits for fails', async () => {
    const passwords = new Passwords(CHEAP);
    const failing = () => Promise.reject(new Error('no database'));
    for (let times = 0; times < 5; times++) {
      await expect(passwords.compare('a password', failing)).rejects.toThrow('no database');
    }
    expect(await passwords.hash('a password')).toContain('$scrypt$');
  });
});
