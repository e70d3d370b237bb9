import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { processKey } from '@wrenn/hypervisor/vm-process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { asHostDiskFull } from '../disk/disk-full.ts';
import { FolderObjectStore } from './folder-object-store.ts';
import { filesBelow, MIB } from './testing/sample-files.ts';

let parent: string;
let root: string;
let store: FolderObjectStore;
const signal = new AbortController().signal;

beforeEach(async () => {
  parent = await mkdtemp(join(tmpdir(), 'wrenn-folder-'));
  root = join(parent, 'objects');
  store = new FolderObjectStore(root);
});
afterEach(() => rm(parent, { recursive: true, force: true }));

const read = async (key: string, range?: { start: number; end: number }) =>
  (await buffer(await store.get(key, range, signal))).toString();

const keys = async (prefix: string) => {
  const found: string[] = [];
  for await (const key of store.list(prefix, signal)) found.push(key);
  return found.sort();
};

describe('a folder of objects', () => {
  it('keeps, replaces, lists and forgets them, with the folders that they needed', async () => {
    expect(await keys('')).toEqual([]);
    await store.put('a/b/c', Readable.from([Buffer.from('one '), Buffer.from('two')]), 7, signal);
    await store.put('a/bc', Buffer.from('x'), undefined, signal);
    await store.put('a/bc', Buffer.from('longer'), 6, signal);
    expect([await keys('a/b'), await keys('a/b/'), await keys('z/')]).toEqual([['a/b/c', 'a/bc'], ['a/b/c'], []]);
    expect(await read('a/b/c')).toBe('one two');
    expect(await read('a/b/c', { start: 2, end: 5 })).toBe('e t');
    expect(await read('a/b/c', { start: 5, end: 50 })).toBe('wo');
    expect(await read('a/b/c', { start: 5, end: 5 })).toBe('');
    expect(await store.head('a/bc', signal)).toEqual({ sizeBytes: 6 });
    expect([await store.head('a/b', signal), await store.head('a/bc/d', signal)]).toEqual([undefined, undefined]);
    await store.delete(['a/b/c', 'a/b/none', 'no/folder'], signal);
    expect(await readdir(join(root, 'a'))).toEqual(['bc']);
    await store.delete(['a/bc'], signal);
    expect(await filesBelow(root)).toEqual([]);
    expect(await readdir(root)).toEqual(['.unfinished']);
  });

  it.each(['../x', '/x', 'a/../../x', 'a//b', '.unfinished/x', 'a/.b', '', 'a\0b', `${'a/'.repeat(40)}a`])(
    'refuses %j as a key',
    async (key) => {
      await expect(store.put(key, Buffer.from('x'), 1, signal)).rejects.toThrow(TypeError);
      await expect(store.get(key, undefined, signal)).rejects.toThrow(TypeError);
      await expect(store.delete([key], signal)).rejects.toThrow(TypeError);
      expect(await readdir(parent)).toEqual([]);
    },
  );

  it('keeps the old object, and nothing else, when a body breaks, ends early or its caller leaves', async () => {
    await store.put('a', Buffer.from('old'), 3, signal);
    const broken = new Error('the disk failed');
    async function* breaking() {
      yield Buffer.alloc(MIB);
      throw broken;
    }
    await expect(store.put('a', Readable.from(breaking()), undefined, signal)).rejects.toBe(broken);
    await expect(store.put('a', Readable.from([Buffer.alloc(9)]), 10, signal)).rejects.toThrow(TypeError);
    const controller = new AbortController();
    const reason = new Error('the caller left');
    const standing = new Readable({ read: () => queueMicrotask(() => controller.abort(reason)) });
    await expect(store.put('a', standing, undefined, controller.signal)).rejects.toBe(reason);
    expect(await read('a')).toBe('old');
    expect(await filesBelow(root)).toEqual(['a']);
  });

  it('never mixes objects that are put at once', async () => {
    const bodies = Array.from({ length: 8 }, (_, index) => Buffer.alloc(300_000, index));
    await Promise.all(bodies.map((body) => store.put('x/y', body, body.length, signal)));
    const kept = await buffer(await store.get('x/y', undefined, signal));
    expect(bodies.some((body) => body.equals(kept))).toBe(true);
  });

  it('makes folders anew that a delete removes meanwhile', async () => {
    for (let round = 0; round < 50; round++) {
      await store.put('x/y/first', Buffer.from('1'), 1, signal);
      await Promise.all([store.delete(['x/y/first'], signal), store.put('x/y/second', Buffer.from('2'), 1, signal)]);
      expect(await read('x/y/second')).toBe('2');
      await store.delete(['x/y/second'], signal);
    }
  });

  it('removes what killed writers left, and nothing of those that write', async () => {
    const unfinished = join(root, '.unfinished');
    await mkdir(unfinished, { recursive: true });
    const child = spawn('sleep', ['60']);
    const running = processKey(child.pid ?? 0);
    const names = {
      running: `${hostname()}~${running?.pid}~${running?.startTicks}~a`,
      dead: `${hostname()}~${running?.pid}~1~b`,
      elsewhere: 'otherhost~1~1~c',
      elsewhereLongAgo: 'otherhost~1~1~d',
    };
    for (const name of Object.values(names)) await writeFile(join(unfinished, name), 'part');
    await utimes(join(unfinished, names.elsewhereLongAgo), 1, 1);
    await store.put('a', Buffer.from('a'), 1, signal);
    expect((await readdir(unfinished)).sort()).toEqual([names.running, names.elsewhere].sort());
    child.kill('SIGKILL');
    await once(child, 'exit');
  });

  it('says what is not there, or cannot be used', async () => {
    await expect(store.get('none', undefined, signal)).rejects.toMatchObject({
      code: 'object_store_failed',
      details: { problem: 'something that was stored in it is not there' },
    });
    await writeFile(root, 'a file');
    await expect(store.put('a', Buffer.from('a'), 1, signal)).rejects.toMatchObject({ code: 'object_store_failed' });
  });

  /** Mounting needs root. */
  it.runIf(process.getuid?.() === 0)('says that it is full, and keeps nothing of what did not fit', async () => {
    await mkdir(root);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', root]);
    try {
      const error: unknown = await store.put('a/b', Buffer.alloc(8 * MIB), undefined, signal).catch((e: unknown) => e);
      expect(error).toMatchObject({ code: 'object_store_failed', details: { problem: 'it is full' } });
      // Freeing space in WRENN_DIR would not help.
      expect(asHostDiskFull(error)).toBeUndefined();
      expect(await filesBelow(root)).toEqual([]);
      await store.put('a/b', Buffer.alloc(2 * MIB), undefined, signal);
    } finally {
      execFileSync('umount', [root]);
    }
  });
});
