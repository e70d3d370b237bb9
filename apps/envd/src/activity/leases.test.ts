import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { makeLeaseDirectory, readLeases, toValidity } from './leases.ts';

const NOW = Date.parse('2030-01-01T12:00:00Z');
const HOUR_MS = 3600 * 1000;

let directory: string;
beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), 'wrenn-leases-')), 'run', 'leases');
  makeLeaseDirectory(directory);
});
afterEach(() => rmSync(join(directory, '..', '..'), { recursive: true }));

/** Writes a file at a time. */
function write(name: string, content: string, agoMs = 0): void {
  const path = join(directory, name);
  writeFileSync(path, content);
  const time = (NOW - agoMs) / 1000;
  utimesSync(path, time, time);
}

const live = async () => (await readLeases(directory, NOW)).leases;
const problems = async () =>
  Object.fromEntries((await readLeases(directory, NOW)).malformed_leases.map(({ name, problem }) => [name, problem]));

describe('the directory of leases', () => {
  it('is one in which everybody may make files and remove only their own', () => {
    expect(statSync(directory).mode & 0o7777).toBe(0o1777);
    makeLeaseDirectory(directory);
  });

  it('may be missing', async () => {
    expect(await readLeases(join(directory, 'none'), NOW)).toEqual({ leases: [], malformed_leases: [] });
  });
});

describe('a lease', () => {
  it('lasts for its seconds from the time when it was written', async () => {
    write('build', '600\n', 60_000);
    write('half', '0.5', 400);
    write('over', '600', 601_000);
    write('never', '0');
    expect((await live()).map(({ name, expires_at }) => [name, expires_at]).sort()).toEqual([
      ['build', '2030-01-01T12:09:00.000Z'],
      ['half', '2030-01-01T12:00:00.100Z'],
    ]);
    expect(await problems()).toEqual({});
  });

  it.each([
    '2030-01-01T13:00:00Z',
    '2030-01-01t13:00:00z\n',
    '2030-01-01 13:00:00+00:00',
    '2030-01-01T15:30:00.000+02:30',
  ])('lasts until %j', async (content) => {
    write('until', content);
    expect(await live()).toMatchObject([{ name: 'until', expires_at: '2030-01-01T13:00:00.000Z' }]);
  });

  it('that has expired is none, and is not wrong either', async () => {
    write('old', '2030-01-01T11:59:59Z');
    expect(await readLeases(directory, NOW)).toEqual({ leases: [], malformed_leases: [] });
  });

  it.each(['999999999', '2099-01-01T00:00:00Z'])(
    'of %j lasts a day at most, however often it is read',
    async (text) => {
      write('long', text, HOUR_MS);
      expect(await live()).toMatchObject([{ expires_at: '2030-01-02T11:00:00.000Z' }]);
      write('long', text, 25 * HOUR_MS);
      expect(await live()).toEqual([]);
    },
  );

  it('is held since its file was made, also when it is renewed', () => {
    const renewed = { mtimeMs: NOW, birthtimeMs: NOW - HOUR_MS };
    expect(toValidity('60', renewed, NOW)).toEqual({ expiresAt: NOW + 60_000, since: NOW - HOUR_MS });
    expect(toValidity('60', { mtimeMs: NOW, birthtimeMs: 0 }, NOW)).toMatchObject({ since: NOW });
  });

  it('that a shell has emptied to write it anew is still held', async () => {
    write('renewed', '', 1000);
    write('empty', '', 10_000);
    expect(await live()).toMatchObject([{ name: 'renewed' }]);
    expect(await problems()).toEqual({ empty: 'holds neither seconds nor an RFC 3339 time' });
  });

  it.each([
    'soon',
    '-5',
    '1e9',
    '0x10',
    '10 minutes',
    '2030-01-01',
    '2030-13-01T00:00:00Z',
    '2030-01-01T13:00:00',
    '∞',
  ])('does not count when it holds %j', async (content) => {
    write('wrong', content);
    expect(await readLeases(directory, NOW)).toEqual({
      leases: [],
      malformed_leases: [{ name: 'wrong', problem: 'holds neither seconds nor an RFC 3339 time' }],
    });
  });

  it('does not count when its file is from the future, so that nobody gets more than a day by that', async () => {
    write('future', '60', -120_000);
    expect(await live()).toEqual([]);
    expect(await problems()).toEqual({ future: 'was changed in the future' });
  });
});

describe('what is no file', () => {
  it('is neither opened nor followed', async () => {
    const outside = join(directory, '..', 'outside');
    writeFileSync(outside, '600');
    symlinkSync(outside, join(directory, 'link'));
    symlinkSync('loop', join(directory, 'loop'));
    execFileSync('mkfifo', [join(directory, 'pipe')]);
    mkdirSync(join(directory, 'folder'));
    expect(await live()).toEqual([]);
    const problem = 'is not a regular file';
    expect(await problems()).toEqual({ link: problem, loop: problem, pipe: problem, folder: problem });
  });
});

describe('bounds', () => {
  it('are kept for a huge file', async () => {
    write('huge', '6'.repeat(50_000_000));
    expect(await problems()).toEqual({ huge: 'has more than 128 bytes' });
  });

  it('are kept for many files', async () => {
    for (let index = 0; index < 200; index += 1) write(`lease-${index}`, index % 2 ? '600' : 'wrong');
    const { leases, malformed_leases } = await readLeases(directory, NOW);
    expect(leases.length + malformed_leases.length).toBe(64);
  });

  it('are kept for names, which go to terminals', async () => {
    write(`\u001b[31m${'x'.repeat(100)}`, '600');
    expect(await live()).toMatchObject([{ name: `??31m${'x'.repeat(59)}` }]);
  });

  it('leave out names that begin with a dot', async () => {
    write('.build.tmp', 'anything');
    expect(await readLeases(directory, NOW)).toEqual({ leases: [], malformed_leases: [] });
  });
});
