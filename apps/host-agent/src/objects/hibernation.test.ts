import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, open, readFile, rm, stat, truncate, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Transform } from 'node:stream';
import { WrennError } from '@wrenn/protocol/errors';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { sumFile } from '../snapshots/file-sum.ts';
import { deleteHibernated, type HibernatedFile, hibernate, wake } from './hibernation.ts';
import { type ObjectStore, storeFailed } from './object-store.ts';
import { diskBytes, filesBelow, MIB, sumOfFile, writeSnapshot, writeSparse } from './testing/sample-files.ts';
import { STORE_KINDS, type TestStore } from './testing/stores.ts';

const KEY = 'cl-sleeper/3';
const manifest = Buffer.from('{"of":"the snapshot"}');

describe.each(STORE_KINDS)('hibernation in $title', ({ problem, start }) => {
  describe.skipIf(problem)('with its server', () => {
    let test: TestStore;
    let store: ObjectStore;
    let work: string;
    let out: string;
    let files: HibernatedFile[];
    let signal: AbortSignal;

    beforeAll(async () => {
      test = await start();
      store = test.store;
    });
    afterAll(() => test[Symbol.asyncDispose]());
    beforeEach(async () => {
      signal = AbortSignal.timeout(25_000);
      work = await mkdtemp(join(tmpdir(), 'wrenn-hibernation-'));
      out = join(work, 'out');
      await mkdir(out);
      files = await writeSnapshot(work);
    });
    afterEach(async () => {
      await rm(work, { recursive: true, force: true });
      await store.delete(await keys(), signal);
    });

    const keys = async () => {
      const found: string[] = [];
      for await (const key of store.list('', signal)) found.push(key);
      return found.sort();
    };
    const store3 = () => hibernate(store, { key: KEY, manifest, files }, signal);
    const stored = (name: string) => join(test.objects, KEY, name);
    const expectStoreFailure = async (doing: Promise<unknown>, problem: RegExp) => {
      const error = await doing.then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error).toBeInstanceOf(WrennError);
      expect(error).toMatchObject({ code: 'object_store_failed', message: expect.stringMatching(problem) });
      expect((error as Error).message).not.toMatch(/\/|127\.0\.0\.1|secret|index\.json/);
    };

    it('gives back every byte, and every hole', async () => {
      const { storedBytes } = await store3();
      expect(await filesBelow(test.objects)).toEqual(
        ['files/0', 'files/1', 'files/2', 'files/3', 'index.json'].map((name) => `${KEY}/${name}`),
      );
      // The random bytes do not shrink, the rest nearly vanishes.
      expect(storedBytes).toBeGreaterThan(12 * MIB);
      expect(storedBytes).toBeLessThan(13.2 * MIB);
      expect((await wake(store, KEY, out, signal)).manifest).toEqual(manifest);
      expect(await filesBelow(out)).toEqual(files.map(({ name }) => name).sort());
      for (const { name, path } of files) {
        expect(await sumOfFile(join(out, name)), name).toBe(await sumOfFile(path));
        expect(await diskBytes(join(out, name)), name).toBeLessThanOrEqual((await diskBytes(path)) + 256 * 1024);
      }
    });

    it('replaces an earlier hibernation under the same key', async () => {
      await store3();
      await writeFile(join(work, 'devices'), 'another state');
      await store3();
      await wake(store, KEY, out, signal);
      expect(await readFile(join(out, 'state/devices'), 'utf8')).toBe('another state');
    });

    it.each(['files/0', 'index.json'])('refuses %s with one other byte', async (name) => {
      await store3();
      await using file = await open(stored(name), 'r+');
      const { size } = await file.stat();
      const byte = Buffer.alloc(1);
      await file.read(byte, 0, 1, size - 100);
      await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, size - 100);
      await expectStoreFailure(wake(store, KEY, out, signal), /it gave back/);
    });

    it.each(['files/0', 'index.json'])('refuses %s when it was cut off', async (name) => {
      await store3();
      await truncate(stored(name), 300);
      await expectStoreFailure(wake(store, KEY, out, signal), /give|gave/);
    });

    it.each(['files/0', 'index.json'])('says that %s is missing', async (name) => {
      await store3();
      await unlink(stored(name));
      await expectStoreFailure(wake(store, KEY, out, signal), /not there|does not have/);
    });

    it('does not believe a store that keeps something else, and leaves nothing in it', async () => {
      const forgetful = withPut(store, (key, body) =>
        key.endsWith('/0') && !(body instanceof Uint8Array) ? body.pipe(flipOneByte()) : body,
      );
      await expectStoreFailure(hibernate(forgetful, { key: KEY, manifest, files }, signal), /it gave back other bytes/);
      expect(await keys()).toEqual([]);
    });

    it('leaves nothing behind when it is aborted, wherever that is', async () => {
      for (const abortAt of ['files/0', 'files/1', 'index.json']) {
        const controller = new AbortController();
        const reason = new Error('the caller left');
        const leaving = withPut(store, (key, body) => {
          if (key.endsWith(abortAt)) setImmediate(() => controller.abort(reason));
          return body;
        });
        await expect(hibernate(leaving, { key: KEY, manifest, files }, controller.signal)).rejects.toBe(reason);
        expect(await keys(), abortAt).toEqual([]);
        expect(
          (await filesBelow(test.objects)).filter((name) => !name.includes('.sgwtmp')),
          abortAt,
        ).toEqual([]);
      }
    });

    it('stops waking when it is aborted', async () => {
      await store3();
      const controller = new AbortController();
      const reason = new Error('the caller left');
      const leaving: ObjectStore = {
        ...bound(store),
        get: (key, range, getSignal) => {
          if (key.endsWith('files/0')) controller.abort(reason);
          return store.get(key, range, getSignal);
        },
      };
      await expect(wake(leaving, KEY, out, controller.signal)).rejects.toBe(reason);
    });

    it('reports what it cannot read on the host as that', async () => {
      files = [...files, { name: 'gone', path: join(work, 'gone') }];
      await expect(store3()).rejects.toMatchObject({ code: 'ENOENT' });
      expect(await keys()).toEqual([]);
    });

    it('refuses names and keys that lead elsewhere', async () => {
      const at = (name: string) =>
        hibernate(store, { key: KEY, manifest, files: [{ name, path: join(work, 'devices') }] }, signal);
      for (const name of ['../x', '/etc/x', 'a//b', 'a/../b', ''])
        await expect(at(name), name).rejects.toThrow(TypeError);
      for (const key of ['../x', 'shared/x', '.unfinished', '/x', 'a/../b', '']) {
        await expect(hibernate(store, { key, manifest, files: [] }, signal), key).rejects.toThrow(TypeError);
        await expect(deleteHibernated(store, key, signal), key).rejects.toThrow(TypeError);
      }
    });

    describe('files that are shared', () => {
      let base: HibernatedFile;
      beforeEach(async () => {
        const path = join(work, 'base');
        await writeSparse(path, 30 * MIB, [{ at: 9 * MIB + 17, bytes: randomBytes(5 * MIB) }]);
        base = { name: 'base', path, sharedAs: await sumFile(path) };
      });
      const sharedKeys = async () => (await keys()).filter((key) => key.startsWith('shared/'));
      const sleep = (key: string, on: ObjectStore = store) =>
        hibernate(on, { key, manifest, files: [base, ...files.slice(1, 2)] }, signal);
      const expectWakes = async (key: string) => {
        const dir = await mkdtemp(join(work, 'woken-'));
        await wake(store, key, dir, signal);
        expect(await sumFile(join(dir, 'base'))).toBe(base.sharedAs);
      };

      it('are linked from this host where it has them, and read from the store where it has lost them', async () => {
        await sleep('cl-a/1');
        for (const [name, local] of [
          ['linked', base.path],
          ['lost', join(work, 'gone')],
        ] as const) {
          const dir = await mkdtemp(join(work, `${name}-`));
          await wake(store, 'cl-a/1', dir, signal, (sum) => (sum === base.sharedAs ? local : undefined));
          expect((await stat(join(dir, 'base'))).ino === (await stat(base.path)).ino).toBe(name === 'linked');
          expect(await sumFile(join(dir, 'base'))).toBe(base.sharedAs);
        }
      });

      it('are stored once, also by two at once, and stay when one hibernation is deleted', async () => {
        await Promise.all([sleep('cl-a/1'), sleep('cl-b/1')]);
        expect(await sharedKeys()).toHaveLength(2);
        await deleteHibernated(store, 'cl-a/1', signal);
        expect((await keys()).filter((key) => key.startsWith('cl-a/'))).toEqual([]);
        await expectWakes('cl-b/1');
        await deleteHibernated(store, 'cl-b/1', signal);
        await deleteHibernated(store, 'cl-b/1', signal);
        expect(await sharedKeys()).toHaveLength(2);
      });

      it('are whole when two agents store them at once', async () => {
        // Another object is another agent to the queue that keeps one agent from storing a file twice.
        await Promise.all([sleep('cl-a/1'), sleep('cl-b/1', bound(store))]);
        await deleteHibernated(store, 'cl-a/1', signal);
        await expectWakes('cl-b/1');
      });

      it('are not read again when they are there, unless they were cut off', async () => {
        await sleep('cl-a/1');
        const puts: string[] = [];
        const watched = withPut(store, (key, body) => {
          puts.push(key);
          return body;
        });
        await sleep('cl-b/1', watched);
        expect(puts.filter((key) => key.startsWith('shared/'))).toEqual([]);
        const data = (await sharedKeys()).find((key) => !key.endsWith('index.json')) ?? '';
        await truncate(join(test.objects, data), MIB);
        await expectStoreFailure(wake(store, 'cl-b/1', out, signal), /give back/);
        await sleep('cl-a/1', watched);
        expect(puts.filter((key) => key.startsWith('shared/'))).toHaveLength(2);
        await expectWakes('cl-b/1');
      });

      it('are stored anew when their index is damaged, and left alone when the store fails', async () => {
        await sleep('cl-a/1');
        const failing: ObjectStore = {
          ...bound(store),
          head: (key, headSignal) =>
            key.startsWith('shared/')
              ? Promise.reject(storeFailed('it cannot be reached'))
              : store.head(key, headSignal),
        };
        const before = await sharedKeys();
        await expectStoreFailure(sleep('cl-a/2', failing), /it cannot be reached/);
        expect(await sharedKeys()).toEqual(before);
        await writeFile(join(test.objects, 'shared', base.sharedAs ?? '', 'index.json'), '{"half of');
        await sleep('cl-b/1');
        await expectWakes('cl-b/1');
        await expectWakes('cl-a/1');
      });

      it('are refused when their content is not what their sum says', async () => {
        await writeSparse(base.path, 30 * MIB, [{ at: 0, bytes: randomBytes(100) }]);
        await expect(sleep('cl-a/1')).rejects.toMatchObject({ code: 'snapshot_damaged' });
        expect(await keys()).toEqual([]);
      });

      it('do not make others wait for one that left', async () => {
        const controller = new AbortController();
        const reason = new Error('the caller left');
        const leaving = withPut(store, (key, body) => {
          if (key.startsWith('shared/')) setImmediate(() => controller.abort(reason));
          return body;
        });
        const left = hibernate(leaving, { key: 'cl-a/1', manifest, files: [base] }, controller.signal);
        await expect(left).rejects.toBe(reason);
        expect(await keys()).toEqual([]);
        await sleep('cl-b/1');
        await expectWakes('cl-b/1');
      });
    });

    /** Mounting needs root. */
    it.runIf(process.getuid?.() === 0)('says that the host’s disk is full when it is', async () => {
      await store3();
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', out]);
      try {
        await expect(wake(store, KEY, out, signal)).rejects.toMatchObject({ code: 'host_disk_full' });
      } finally {
        execFileSync('umount', [out]);
      }
    });
  });
});

function bound(store: ObjectStore): ObjectStore {
  return {
    put: store.put.bind(store),
    get: store.get.bind(store),
    head: store.head.bind(store),
    delete: store.delete.bind(store),
    list: store.list.bind(store),
  };
}

type Body = Parameters<ObjectStore['put']>[1];

/** The store, with something done to each body on its way in. */
function withPut(store: ObjectStore, change: (key: string, body: Body) => Body): ObjectStore {
  return { ...bound(store), put: (key, body, size, signal) => store.put(key, change(key, body), size, signal) };
}

function flipOneByte(): Transform {
  let flipped = false;
  return new Transform({
    transform(part: Buffer, _encoding, done) {
      const copy = Buffer.from(part);
      if (!flipped && copy.length > 1000) {
        copy[1000] = (copy[1000] ?? 0) ^ 1;
        flipped = true;
      }
      done(null, copy);
    },
  });
}
