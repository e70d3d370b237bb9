import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Scratch, scratchFolder } from '@wrenn/guest-image/testing/scratch';
import { newId } from '@wrenn/protocol/ids';
import pino from 'pino';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { CountingStore } from '../objects/testing/counting-store.ts';
import { filesBelow, MIB, sumOfFile } from '../objects/testing/sample-files.ts';
import { STORE_KINDS, type TestStore } from '../objects/testing/stores.ts';
import { sealFolder } from '../snapshots/sealed-folder.ts';
import { SnapshotStore } from '../snapshots/snapshot-store.ts';
import { fetchedSnapshots, fetchSnapshot, publishSnapshot } from './exchange-snapshot.ts';

const identity = { kind: 'qemu', version: '7.2.22', accelerator: 'tcg', arch: 'x86_64', cpu: 'max' } as const;
const log = pino({ level: 'silent' });
const signal = new AbortController().signal;
const FILES = ['blank.qcow2', 'layers/0.raw', 'layers/1.qcow2', 'memory/memory'];

let stack: AsyncDisposableStack;
let test: TestStore;
let id: string;
let giver: Awaited<ReturnType<typeof openHost>>;
let taker: Awaited<ReturnType<typeof openHost>>;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  const [kind] = STORE_KINDS;
  if (!kind) throw new Error('there is no kind of store');
  test = stack.use(await kind.start());
  id = newId('snap');
  [giver, taker] = [await openHost(), await openHost()];
  await makeSnapshot(giver.snapshots);
});
afterEach(() => stack.disposeAsync());

/** What the exchange of snapshots takes of an agent. */
async function openHost() {
  const scratch: Scratch = stack.use(await scratchFolder());
  const snapshots = new SnapshotStore({ dir: scratch.wrennDir, identity, log });
  await snapshots.open();
  const objects = new CountingStore(test.store);
  const asked: number[] = [];
  const makeRoomForFetched = async (bytes: number) => void asked.push(bytes);
  /** Sum of a file of a template that this host has. */
  const templateFiles = new Map<string, string>();
  const templates = { findFile: (sum: string) => templateFiles.get(sum) };
  return { snapshots, objects, templates, makeRoomForFetched, asked, templateFiles, dir: scratch.path };
}

async function makeSnapshot(snapshots: SnapshotStore): Promise<void> {
  const partial = await snapshots.makePartial(id, '1');
  for (const name of FILES) {
    await mkdir(join(partial, name, '..'), { recursive: true });
    await writeFile(join(partial, name), randomBytes(2 * MIB));
  }
  await sealFolder({
    ...{ partial, final: snapshots.folder(id, 1) },
    manifest: {
      ...{ version: 2, kind: 'snapshot', id, generation: 1, hypervisor: identity, template: 'minimal' },
      ...{ imageSha256: 'ab', shape: { vcpus: 1, memoryMb: 256 }, diskMb: 1024, requestedDiskMb: 0 },
      ...{ layers: ['0.raw', '1.qcow2'], sharedLayers: 2, guestToken: '', versions: {} },
      ...{ defaults: { user: 'user', workdir: '', envs: {} }, createdAt: '2026-01-01T00:00:00.000Z' },
    },
  });
  await snapshots.add(id, 1);
}

it('brings a snapshot to another host as it was, each chunk stored and read once', async () => {
  const key = await publishSnapshot(giver, id, signal);
  expect(await publishSnapshot(giver, id, signal)).toBe(key);
  expect(giver.objects.puts.filter((put) => !put.endsWith('index.json'))).toHaveLength(FILES.length);
  const fetched = await fetchSnapshot(taker, id, key, signal);
  expect(fetched.problem).toBeUndefined();
  for (const name of FILES) {
    expect(await sumOfFile(join(fetched.dir, name))).toBe(await sumOfFile(join(giver.snapshots.folder(id, 1), name)));
  }
  expect(taker.objects.hasRepeats).toBe(false);
  expect(taker.objects.contentBytes).toBe(FILES.length * 2 * MIB);
  expect(taker.asked).toEqual([FILES.length * 2 * MIB]);
  await fetchSnapshot(taker, id, key, signal);
  expect(taker.objects.contentBytes).toBe(FILES.length * 2 * MIB);
});

it('stores and reads what a template has once for all, and nothing of it where it is', async () => {
  const manifest = giver.snapshots.latest(id)?.manifest;
  const base = manifest?.files['layers/0.raw']?.sha256 ?? '';
  const path = join(giver.snapshots.folder(id, 1), 'layers/0.raw');
  giver.templateFiles.set(base, path);
  const key = await publishSnapshot(giver, id, signal);
  expect(giver.objects.puts.some((put) => put.startsWith(`shared/${base}/`))).toBe(true);
  taker.templateFiles.set(base, path);
  await fetchSnapshot(taker, id, key, signal);
  expect(taker.objects.contentBytes).toBe((FILES.length - 1) * 2 * MIB);
  expect(taker.asked).toEqual([(FILES.length - 1) * 2 * MIB]);
});

it('leaves nothing of a snapshot that did not arrive whole, and takes it when it can', async () => {
  const key = await publishSnapshot(giver, id, signal);
  taker.objects.beforeGet = (wanted) => {
    if (wanted.endsWith('/files/2')) throw new Error('the line is cut');
  };
  await expect(fetchSnapshot(taker, id, key, signal)).rejects.toThrow('the line is cut');
  expect(taker.snapshots.latest(id)).toBeUndefined();
  expect(await filesBelow(join(taker.dir, 'snapshots'))).toEqual([]);
  taker.objects.beforeGet = () => undefined;
  expect((await fetchSnapshot(taker, id, key, signal)).problem).toBeUndefined();
});

it('refuses a damaged chunk', async () => {
  const key = await publishSnapshot(giver, id, signal);
  const stored = join(test.objects, key, 'files/1');
  const bytes = await readFile(stored);
  bytes[MIB + 7] = (bytes[MIB + 7] ?? 0) ^ 1;
  await writeFile(stored, bytes);
  await expect(fetchSnapshot(taker, id, key, signal)).rejects.toMatchObject({ code: 'object_store_failed' });
  expect(taker.snapshots.latest(id)).toBeUndefined();
});

it('knows what was fetched, also after a restart, and what is its own', async () => {
  const key = await publishSnapshot(giver, id, signal);
  await fetchSnapshot(taker, id, key, signal);
  expect(await fetchedSnapshots(giver.snapshots)).toEqual([]);
  await taker.snapshots.open();
  const [copy] = await fetchedSnapshots(taker.snapshots);
  expect(copy).toMatchObject({ name: id });
  expect(copy?.bytes).toBeGreaterThanOrEqual(FILES.length * 2 * MIB);
  await copy?.remove();
  expect(taker.snapshots.latest(id)).toBeUndefined();
});

it('says that a snapshot is not here', async () => {
  await expect(publishSnapshot(taker, id, signal)).rejects.toMatchObject({ code: 'template_not_found' });
  await expect(fetchSnapshot(taker, id, `snapshots/${id}`, signal)).rejects.toMatchObject({
    code: 'object_store_failed',
  });
});
