import { execFileSync } from 'node:child_process';
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { packLocal, unpackLocal } from './local-tar.ts';

const { signal } = new AbortController();

let dir: string;
let target: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'wrenn-tar-'));
  target = join(dir, 'target');
  mkdirSync(target);
});
afterEach(() => rmSync(dir, { recursive: true }));

describe('packLocal and unpackLocal', () => {
  it('carry files, folders, links and modes', async () => {
    const source = join(dir, 'source');
    execFileSync('sh', [
      '-c',
      'mkdir -p "$1/sub" && cd "$1" && echo run >sub/x.sh && chmod 750 sub/x.sh && ln -s sub/x.sh link && truncate -s 3M big',
      'sh',
      source,
    ]);
    const archive = new PassThrough();
    await Promise.all([packLocal(source, archive, signal), unpackLocal(target, archive, signal)]);
    expect(readdirSync(target).sort()).toEqual(['big', 'link', 'sub']);
    expect(readlinkSync(join(target, 'link'))).toBe('sub/x.sh');
    expect(lstatSync(join(target, 'sub/x.sh')).mode & 0o777).toBe(0o750);
    expect(lstatSync(join(target, 'big')).size).toBe(3 * 1024 * 1024);
  });

  it('say what is wrong with a folder', async () => {
    const packing = packLocal(join(dir, 'missing'), new PassThrough(), signal);
    await expect(packing).rejects.toThrow(/tar could not pack .*No such file/);
  });
});

describe('unpackLocal', () => {
  async function unpack(fill: (archive: ReturnType<typeof pack>) => void): Promise<void> {
    const archive = pack();
    fill(archive);
    archive.finalize();
    await unpackLocal(target, Readable.from([await buffer(archive)]), signal);
  }

  it('makes no devices, and nothing that runs as another user', async () => {
    await unpack((archive) => {
      archive.entry({ name: 'disk', type: 'block-device', devmajor: 8, devminor: 0, mode: 0o666 });
      archive.entry({ name: 'null', type: 'character-device', devmajor: 1, devminor: 3, mode: 0o666 });
      archive.entry({ name: 'pipe', type: 'fifo' });
      archive.entry({ name: 'root-shell', mode: 0o6755, uid: 0, gid: 0 }, 'x');
      archive.entry({ name: 'theirs', uid: 4242, gid: 4242 }, 'x');
    });
    expect(readdirSync(target).sort()).toEqual(['root-shell', 'theirs']);
    expect(lstatSync(join(target, 'root-shell')).mode & 0o7777).toBe(0o755);
    expect(lstatSync(join(target, 'theirs')).uid).toBe(process.getuid?.());
  });

  it.each([
    ['a name that leads out', [{ name: '../escaped' }]],
    ['an absolute name', [{ name: '/escaped' }]],
    ['a link that leads out', [{ name: 'out', type: 'symlink' as const, linkname: '..' }, { name: 'out/escaped' }]],
  ])('keeps %s from leaving the folder', async (_, entries) => {
    writeFileSync(join(dir, 'escaped'), 'untouched');
    const unpacking = unpack((archive) => {
      for (const entry of entries) {
        if ('type' in entry) archive.entry(entry);
        else archive.entry(entry, 'overwritten');
      }
    });
    // GNU tar refuses some of these and renames others; it must do neither harm.
    await unpacking.catch((error: Error) => expect(error.message).toContain('tar could not unpack'));
    expect(readFileSync(join(dir, 'escaped'), 'utf8')).toBe('untouched');
  });

  it('fails for what is no archive', async () => {
    await expect(unpackLocal(target, Readable.from([Buffer.alloc(2048, 'x')]), signal)).rejects.toThrow();
  });
});
