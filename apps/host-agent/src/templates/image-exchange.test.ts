import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readImage } from '@wrenn/guest-image/catalog';
import { publishImage } from '@wrenn/guest-image/image-store';
import { type Scratch, scratchFolder } from '@wrenn/guest-image/testing/scratch';
import pino from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { makeRoomForFetched } from '../objects/fetched-space.ts';
import { sha256In } from '../objects/stored-image.ts';
import { CountingStore } from '../objects/testing/counting-store.ts';
import { diskBytes, filesBelow, MIB, sumOfFile, writeSparse } from '../objects/testing/sample-files.ts';
import { STORE_KINDS, type TestStore } from '../objects/testing/stores.ts';
import { ImageExchange } from './image-exchange.ts';

const KEY = 'a'.repeat(64);
const SIZE = 24 * MIB;
/** Of the sample: what is not a hole. */
const CHUNKS = 12;
const log = pino({ level: 'silent' });
const signal = new AbortController().signal;
const [folderStore] = STORE_KINDS;

let test: TestStore;
let stack: AsyncDisposableStack;
let giver: Scratch;
let taker: Scratch;
let sha256: string;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  if (!folderStore) throw new Error('there is no kind of store');
  test = stack.use(await folderStore.start());
  giver = stack.use(await scratchFolder());
  taker = stack.use(await scratchFolder());
  sha256 = await makeImage(giver, 'mine');
});
afterEach(() => stack.disposeAsync());

/** An image of random bytes and holes. */
async function makeImage({ wrennDir }: Scratch, name: string): Promise<string> {
  const folder = join(wrennDir.cache, 'new');
  await mkdir(folder, { recursive: true });
  await mkdir(wrennDir.images, { recursive: true });
  await writeSparse(join(folder, 'rootfs.ext4'), SIZE, [
    { at: 0, bytes: randomBytes(4 * MIB) },
    { at: 12 * MIB, bytes: randomBytes(8 * MIB) },
  ]);
  const manifest = await publishImage({
    ...{ wrennDir, folder, sizeBytes: SIZE, signal },
    description: {
      ...{ name, arch: 'amd64', packages: { bash: '5.2' }, envdVersion: '0.1.0', nodeVersion: '24.0.0' },
      ...{ kernelVersion: '6.1.0', defaultUser: 'user', defaultWorkdir: '/home/user', defaultEnvs: { A: '1' } },
      ...{ source: KEY, inputs: KEY },
    },
  });
  return manifest.sha256;
}

function exchange(scratch: Scratch, makeRoom: (bytes: number) => Promise<void> = async () => undefined) {
  const store = new CountingStore(test.store);
  const images = new ImageExchange({ dir: scratch.wrennDir, objects: store, makeRoomForFetched: makeRoom, log });
  return { store, images: stack.use(images) };
}

describe('an image', () => {
  it('reaches another host as it was, each chunk stored and read once', async () => {
    const from = exchange(giver);
    await from.images.publish('mine', signal);
    await from.images.publish('mine', signal);
    const contents = from.store.puts.filter((key) => !key.endsWith('index.json'));
    expect(contents).toHaveLength(1);
    const to = exchange(taker);
    const fetched = await to.images.get('mine', sha256, signal);
    expect(fetched.manifest).toMatchObject({ name: 'mine', sha256, sizeBytes: SIZE, defaultEnvs: { A: '1' } });
    expect(await sumOfFile(fetched.rootfsPath)).toBe(sha256);
    expect(await diskBytes(fetched.rootfsPath)).toBeLessThan((CHUNKS + 2) * MIB);
    expect(to.store.hasRepeats).toBe(false);
    // Random bytes do not shrink.
    expect(to.store.contentBytes).toBe(CHUNKS * MIB);
    await to.images.get('mine', sha256, signal);
    expect(to.store.contentBytes).toBe(CHUNKS * MIB);
    expect(await filesBelow(join(taker.wrennDir.images, '.fetching'))).toEqual([]);
  });

  it('is fetched once for all that want it at once', async () => {
    await exchange(giver).images.publish('mine', signal);
    const { store, images } = exchange(taker);
    const found = await Promise.all(Array.from({ length: 10 }, () => images.get('mine', sha256, signal)));
    expect(new Set(found.map(({ rootfsPath }) => rootfsPath)).size).toBe(1);
    expect(store.contentBytes).toBe(CHUNKS * MIB);
  });

  it('is stored once by two hosts that have it', async () => {
    await exchange(giver).images.publish('mine', signal);
    await exchange(taker).images.get('mine', sha256, signal);
    const again = exchange(taker);
    await again.images.publish('mine', signal);
    expect(again.store.puts).toEqual([]);
  });

  it('goes on arriving when one of those who wait leaves', async () => {
    await exchange(giver).images.publish('mine', signal);
    const { store, images } = exchange(taker);
    const [leaving, gate] = [new AbortController(), Promise.withResolvers<void>()];
    store.beforeGet = () => gate.promise;
    const left = images.get('mine', sha256, leaving.signal);
    const stays = images.get('mine', sha256, signal);
    leaving.abort(new Error('has left'));
    await expect(left).rejects.toThrow('has left');
    gate.resolve();
    expect((await stays).manifest.sha256).toBe(sha256);
  });

  it('goes on where it was cut off', async () => {
    await exchange(giver).images.publish('mine', signal);
    const first = exchange(taker);
    let parts = 0;
    first.store.beforeGet = (key) => {
      if (!key.endsWith('index.json') && ++parts > 1) throw new Error('the line is cut');
    };
    await expect(first.images.get('mine', sha256, signal)).rejects.toThrow('the line is cut');
    await expect(readImage(taker.wrennDir, 'mine')).rejects.toMatchObject({ code: 'template_not_found' });
    const second = exchange(taker);
    const fetched = await second.images.get('mine', sha256, signal);
    expect(await sumOfFile(fetched.rootfsPath)).toBe(sha256);
    expect(second.store.contentBytes).toBeGreaterThan(0);
    expect(second.store.contentBytes).toBeLessThanOrEqual((CHUNKS - 4) * MIB);
  });

  it('does not believe what an earlier attempt left', async () => {
    await exchange(giver).images.publish('mine', signal);
    const folder = join(taker.wrennDir.images, '.fetching', sha256);
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'rootfs.ext4'), randomBytes(4 * MIB));
    await truncate(join(folder, 'rootfs.ext4'), SIZE);
    const fetched = await exchange(taker).images.get('mine', sha256, signal);
    expect(await sumOfFile(fetched.rootfsPath)).toBe(sha256);
  });

  it('is refused where a chunk of it is damaged, and arrives when the store is mended', async () => {
    await exchange(giver).images.publish('mine', signal);
    const path = await storedContent();
    const good = await readFile(path);
    const bad = Buffer.from(good);
    bad[6 * MIB + 5] = (bad[6 * MIB + 5] ?? 0) ^ 1;
    await writeFile(path, bad);
    await expect(exchange(taker).images.get('mine', sha256, signal)).rejects.toMatchObject({
      code: 'object_store_failed',
    });
    await expect(readImage(taker.wrennDir, 'mine')).rejects.toMatchObject({ code: 'template_not_found' });
    await writeFile(path, good);
    expect((await exchange(taker).images.get('mine', sha256, signal)).manifest.sha256).toBe(sha256);
  });

  it('is refused where the whole is another one than its key says', async () => {
    await exchange(giver).images.publish('mine', signal);
    // Bytes beyond the last chunk of the index are nobody's: only the sum of the whole tells.
    const folder = join(taker.wrennDir.images, '.fetching', sha256);
    await mkdir(folder, { recursive: true });
    await writeSparse(join(folder, 'rootfs.ext4'), SIZE, [{ at: 22 * MIB, bytes: Buffer.from('not of the image') }]);
    const { images } = exchange(taker);
    await expect(images.get('mine', sha256, signal)).rejects.toMatchObject({ code: 'object_store_failed' });
    expect(await filesBelow(join(taker.wrennDir.images, '.fetching'))).toEqual([]);
    expect((await images.get('mine', sha256, signal)).manifest.sha256).toBe(sha256);
  });

  it('that nobody stored is said to be missing, and a name that is here stays what it is', async () => {
    const { images } = exchange(taker);
    await expect(images.get('mine', sha256, signal)).rejects.toMatchObject({
      code: 'object_store_failed',
      message: expect.stringContaining('does not have this template'),
    });
    const own = await makeImage(taker, 'mine');
    await exchange(giver).images.publish('mine', signal);
    expect((await images.get('mine', sha256, signal)).manifest.sha256).toBe(own);
  });

  it('gets another name without being read again where its bytes are here', async () => {
    await exchange(giver).images.publish('mine', signal);
    const { store, images } = exchange(taker);
    await images.get('mine', sha256, signal);
    const before = store.contentBytes;
    expect((await images.get('yours', sha256, signal)).manifest.sha256).toBe(sha256);
    expect(store.contentBytes).toBe(before);
  });

  it('takes no disk that is not there', async () => {
    await exchange(giver).images.publish('mine', signal);
    const asked: number[] = [];
    const { images } = exchange(taker, async (bytes) => {
      asked.push(bytes);
      await makeRoomForFetched(taker.path, Number.MAX_SAFE_INTEGER, []);
    });
    await expect(images.get('mine', sha256, signal)).rejects.toMatchObject({ code: 'host_disk_full' });
    expect(asked).toEqual([CHUNKS * MIB]);
    expect(await readdir(taker.wrennDir.images)).toEqual(['store']);
  });
});

describe('copies', () => {
  it('that were not used for longest make room; own images and those in use stay', async () => {
    await exchange(giver).images.publish('mine', signal);
    const { images } = exchange(taker);
    await makeImage(taker, 'own');
    const fetched = await images.get('mine', sha256, signal);
    expect((await images.copies()).map(({ name }) => name)).toEqual([sha256]);
    // Beside petabytes no disk of this machine counts.
    const huge = (await images.copies()).map((each) => ({ ...each, bytes: 8e15 }));
    await expect(makeRoomForFetched(taker.path, 4e15, huge)).rejects.toMatchObject({ code: 'host_disk_full' });
    await readImage(taker.wrennDir, 'mine');
    const [copy] = await images.copies();
    await copy?.remove();
    await expect(readImage(taker.wrennDir, 'mine')).rejects.toMatchObject({ code: 'template_not_found' });
    await expect(stat(fetched.rootfsPath)).rejects.toMatchObject({ code: 'ENOENT' });
    expect((await readImage(taker.wrennDir, 'own')).name).toBe('own');
    expect(await images.copies()).toEqual([]);
  });

  it('go in the order of their last use, as many as it takes', async () => {
    const gone: string[] = [];
    const hoursAgo = (hours: number) => Date.now() - hours * 3_600_000;
    const copy = (name: string, usedAtMs: number, bytes: number) => {
      return { name, bytes, usedAtMs, remove: async () => void gone.push(name) };
    };
    const copies = [copy('newer', hoursAgo(1), 4e15), copy('oldest', hoursAgo(9), 1), copy('old', hoursAgo(5), 8e15)];
    expect(await makeRoomForFetched(taker.path, MIB, copies)).toEqual(['oldest', 'old', 'newer']);
    expect(gone).toEqual(['oldest', 'old', 'newer']);
    gone.length = 0;
    const inUse = [copy('in use', Date.now(), 9e15)];
    await expect(makeRoomForFetched(taker.path, MIB, inUse)).rejects.toMatchObject({ code: 'host_disk_full' });
    expect(gone).toEqual([]);
  });

  it('are used when a VM is made of them', async () => {
    await exchange(giver).images.publish('mine', signal);
    const { images } = exchange(taker);
    const fetched = await images.get('mine', sha256, signal);
    await utimes(join(fetched.rootfsPath, '..', 'fetched'), new Date(0), new Date(0));
    expect((await images.copies())[0]?.usedAtMs).toBe(0);
    await images.touch(fetched);
    expect((await images.copies())[0]?.usedAtMs).toBeGreaterThan(0);
  });
});

it('takes no other key for that of an image', () => {
  expect(sha256In(`images/${KEY}`)).toBe(KEY);
  for (const key of ['capsules/cl-1', `images/../${KEY}`, 'images/ab', KEY]) {
    expect(() => sha256In(key)).toThrow(/object_key/);
  }
});

async function storedContent(): Promise<string> {
  const [found] = (await filesBelow(join(test.objects, 'shared'))).filter((name) => !name.endsWith('index.json'));
  return join(test.objects, 'shared', found ?? '');
}
