import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, readdirSync, readlinkSync } from 'node:fs';
import { copyFile, rename, rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { chooseHypervisor } from '@wrenn/hypervisor/choose-hypervisor';
import type { DiskLayer, DiskStop, Hypervisor, MemorySnapshot, RunningVm, VmSpec } from '@wrenn/hypervisor/hypervisor';
import { until } from '@wrenn/testing/until';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { inBackground, inGuest, TestGuests, type TestSlot, untilGuestIsUp } from './support/hypervisor-guest.ts';

const run = promisify(execFile);

let guests: TestGuests;
let hypervisor: Hypervisor;
const running = new Set<RunningVm>();

const soon = (timeoutMs = 60_000) => AbortSignal.timeout(timeoutMs);

async function tracked(start: Promise<RunningVm>): Promise<RunningVm> {
  const vm = await start;
  running.add(vm);
  return vm;
}

beforeAll(async () => {
  guests = await TestGuests.create();
  ({ hypervisor } = await chooseHypervisor());
});

afterEach(async () => {
  for (const vm of running) await vm.kill();
  running.clear();
});

afterAll(async () => {
  await guests?.[Symbol.asyncDispose]();
});

const base = (): DiskLayer => ({ path: guests.rootDiskPath, format: 'raw' });

/** A VM's spec with all layers of its disk given, nearest first. */
function layered(id: string, slot: TestSlot, diskPath: string, backing: readonly DiskLayer[]): VmSpec {
  const spec = guests.spec(id, slot, diskPath);
  return { ...spec, disk: { ...spec.disk, backing } };
}

async function sleep(vm: RunningVm): Promise<MemorySnapshot> {
  await vm.pause(soon());
  const snapshot = await vm.saveSnapshot(await guests.makeSnapshotDir(), soon());
  await vm.kill();
  return snapshot;
}

/**
 * The guest's whole disk by its own sums, read from the device and not from the guest's caches. Of reading, too, nothing
 * is left that the guest would write later.
 */
function sums(slot: TestSlot): Promise<string> {
  return inGuest(slot, 'sync; echo 3 >/proc/sys/vm/drop_caches; cd /; md5sum gen-*; sync');
}

async function writeGeneration(slot: TestSlot, generation: number): Promise<void> {
  // Each generation also changes a block in the middle of every earlier one's file.
  await inGuest(
    slot,
    `for f in /gen-*; do [ -f $f ] && echo ${generation} | dd of=$f bs=4096 seek=${generation} conv=notrunc 2>/dev/null; done
     head -c 1000000 /dev/urandom >/gen-${generation}; sync`,
  );
}

describe('a disk of given layers', () => {
  // What the headers say is wrong in different ways: a name of nothing, and another file of the machine.
  it.each([
    { says: 'nothing', name: () => undefined },
    { says: 'a file that is not there', name: () => 'template.qcow2' },
    { says: 'another file', name: () => '/etc/passwd' },
  ])('of up to 6 overlays, whose headers name $says, keeps every generation', async ({ name }) => {
    const slot = await guests.makeSlot();
    let layers: readonly DiskLayer[] = [base()];
    let disk = await guests.makeBlankOverlay(name());
    let vm = await tracked(hypervisor.boot(layered('layers', slot, disk, layers), soon()));
    await untilGuestIsUp(slot);
    let before = '';
    for (let generation = 1; generation <= 6; generation++) {
      await writeGeneration(slot, generation);
      before = await sums(slot);
      const snapshot = await sleep(vm);
      // As an agent that gives the frozen layer a place of its own does: no name of any header leads to it.
      const frozen = `${disk}.frozen`;
      await rename(disk, frozen);
      layers = [{ path: frozen, format: 'qcow2' }, ...layers];
      disk = await guests.makeBlankOverlay(name());
      vm = await tracked(hypervisor.restore(layered('layers', slot, disk, layers), snapshot, soon()));
      expect(await sums(slot)).toBe(before);
    }
    expect(before.split('\n')).toHaveLength(6);
    await vm.kill();
    await tracked(hypervisor.boot(layered('layers', slot, await guests.makeBlankOverlay(name()), layers), soon()));
    await untilGuestIsUp(slot);
    expect(await sums(slot)).toBe(before);
  });
});

/** A running VM over `count` frozen layers with a template's one at the bottom; their data in /gen-*. */
async function grownVm(id: string, count: number, dir?: string) {
  const slot = await guests.makeSlot();
  const template = await guests.makeBlankOverlay();
  const kept: readonly DiskLayer[] = [{ path: template, format: 'qcow2' }, base()];
  let vm = await tracked(hypervisor.boot(layered(id, slot, template, [base()]), soon()));
  await untilGuestIsUp(slot);
  await writeGeneration(slot, 1);
  let layers = kept;
  for (let generation = 2; ; generation++) {
    const snapshot = await sleep(vm);
    const disk = await guests.makeBlankOverlay('nowhere', dir);
    vm = await tracked(hypervisor.restore(layered(id, slot, disk, layers), snapshot, soon()));
    if (layers.length > count) return { vm, slot, disk, layers, kept, extra: layers.slice(0, -2) };
    await writeGeneration(slot, generation);
    layers = [{ path: disk, format: 'qcow2' }, ...layers];
  }
}

function openDisks(vm: RunningVm): string[] {
  const fds = `/proc/${vm.process.pid}/fd`;
  const paths = readdirSync(fds).map((fd) => readlinkSync(`${fds}/${fd}`));
  return [...new Set(paths.filter((path) => /\.(qcow2|ext4)$/.test(path)))].sort();
}

async function fileSum(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest('hex');
}

/** Whether an overlay is whole by itself, whatever its header says to be below it. */
async function checkImage(path: string): Promise<void> {
  const image = { driver: 'qcow2', file: { driver: 'file', filename: path }, backing: null };
  await run('qemu-img', ['check', '-q', `json:${JSON.stringify(image)}`]);
}

const toTemplate = { keepLayers: 2 };

describe('sleeping again and again', () => {
  it('keeps memory and disk exactly for 5 generations, with forks and merges between', async () => {
    const { vm: first, slot, disk: firstDisk, layers: firstLayers, kept } = await grownVm('cycles', 1);
    let [vm, disk, layers] = [first, firstDisk, firstLayers];
    await inGuest(slot, 'head -c 8000000 /dev/urandom >/tmpfs/big');
    for (let generation = 3; generation <= 7; generation++) {
      await writeGeneration(slot, generation);
      await inGuest(
        slot,
        `head -c 3000000 /dev/urandom >/tmpfs/mem-${generation}
         echo ${generation} | dd of=/tmpfs/big bs=4096 seek=${generation * 100} conv=notrunc 2>/dev/null
         rm -f /tmpfs/mem-${generation - 2}`,
      );
      const before = [await sums(slot), await inGuest(slot, 'md5sum /tmpfs/*')];

      // A fork first: saved twice in a row, and in between it ran.
      await vm.pause(soon());
      const forked = await vm.saveSnapshot(await guests.makeSnapshotDir(), soon());
      const copy = `${disk}.fork`;
      await copyFile(disk, copy);
      await vm.resume(soon());
      await inGuest(slot, 'echo after the fork >/tmpfs/later; echo later >/later; sync');
      if (generation % 2 === 1) expect(await vm.compactDisk(toTemplate, soon())).toBe('merged');
      const below = generation % 2 === 1 ? kept : layers;
      const snapshot = await sleep(vm);

      const childSlot = await guests.makeSlot();
      const child = await tracked(hypervisor.restore(layered('child', childSlot, copy, layers), forked, soon()));
      expect([await sums(childSlot), await inGuest(childSlot, 'md5sum /tmpfs/*')]).toEqual(before);
      expect(await inGuest(childSlot, 'ls /later /tmpfs/later 2>/dev/null')).toBe('');
      await child.kill();

      layers = [{ path: disk, format: 'qcow2' }, ...below];
      disk = await guests.makeBlankOverlay();
      vm = await tracked(hypervisor.restore(layered('cycles', slot, disk, layers), snapshot, soon()));
      expect(await inGuest(slot, 'cat /tmpfs/later /later; rm /tmpfs/later /later; sync')).toBe(
        'after the fork\nlater',
      );
      expect([await sums(slot), await inGuest(slot, 'md5sum /tmpfs/*')]).toEqual(before);
    }
    expect(layers.length).toBeLessThanOrEqual(4);
  });
});

describe('merging the layers of a disk', () => {
  it('leaves the overlay and the kept layers, with the same data, while the VM runs', async () => {
    const { vm, slot, disk, layers, kept, extra } = await grownVm('merge', 5);
    const before = await sums(slot);
    const frozenSums = await Promise.all(layers.map((layer) => fileSum(layer.path)));
    expect(openDisks(vm)).toEqual([disk, ...layers.map((layer) => layer.path)].sort());
    expect(await vm.compactDisk(toTemplate, soon())).toBe('merged');
    expect(openDisks(vm)).toEqual([disk, ...kept.map((layer) => layer.path)].sort());
    expect(await Promise.all(layers.map((layer) => fileSum(layer.path)))).toEqual(frozenSums);
    expect(await vm.compactDisk(toTemplate, soon())).toBe('merged');
    expect(await sums(slot)).toBe(before);
    await writeGeneration(slot, 7);
    const after = await sums(slot);
    for (const layer of extra) await rm(layer.path);
    const snapshot = await sleep(vm);
    await checkImage(disk);
    const overlay = await guests.makeBlankOverlay();
    const backing: readonly DiskLayer[] = [{ path: disk, format: 'qcow2' }, ...kept];
    await tracked(hypervisor.restore(layered('merge', slot, overlay, backing), snapshot, soon()));
    expect(await sums(slot)).toBe(after);
  });

  it('is interrupted at once by a pause, with the whole chain valid', async () => {
    let { vm, slot, disk, layers, kept } = await grownVm('interrupt', 4);
    await inGuest(slot, 'head -c 20000000 /dev/urandom >/gen-big; sync');
    for (const waitMs of [0, 30, 300, 1500]) {
      const before = await sums(slot);
      const compaction = vm.compactDisk({ ...toTemplate, maxBytesPerSecond: 500_000 }, soon());
      await delay(waitMs);
      await vm.pause(soon());
      expect(await compaction).toBe('interrupted');
      await expect(vm.compactDisk(toTemplate, soon())).rejects.toThrow(/is paused/);
      const snapshot = await sleep(vm);
      await checkImage(disk);
      layers = [{ path: disk, format: 'qcow2' }, ...layers];
      disk = await guests.makeBlankOverlay();
      vm = await tracked(hypervisor.restore(layered('interrupt', slot, disk, layers), snapshot, soon()));
      expect(await sums(slot), `after ${waitMs} ms`).toBe(before);
    }
    const before = await sums(slot);
    const slow = vm.compactDisk({ ...toTemplate, maxBytesPerSecond: 500_000 }, AbortSignal.timeout(500));
    await expect(slow).rejects.toMatchObject({ name: 'TimeoutError' });
    expect(await vm.compactDisk(toTemplate, soon())).toBe('merged');
    expect(openDisks(vm)).toEqual([disk, ...kept.map((layer) => layer.path)].sort());
    expect(await sums(slot)).toBe(before);
    // Killed in the middle: the chain that it had is still whole.
    await vm.kill();
  });

  it('ends with its VM, and goes on under a later agent', async () => {
    const { vm, slot, disk, layers, kept } = await grownVm('adopt-merge', 3);
    const before = await sums(slot);
    // As of an agent that was killed: nobody waits for the job.
    const lost = vm.compactDisk({ ...toTemplate, maxBytesPerSecond: 300_000 }, soon()).catch((e: unknown) => e);
    await delay(300);
    vm.release();
    expect(await lost).toBeInstanceOf(Error);
    const adopted = await hypervisor.adopt('adopt-merge', vm.process, soon());
    if (!adopted) throw new Error('The VM was not adopted');
    running.add(adopted);
    await adopted.pause(soon());
    const snapshot = await adopted.saveSnapshot(await guests.makeSnapshotDir(), soon());
    await adopted.resume(soon());
    expect(await adopted.compactDisk(toTemplate, soon())).toBe('merged');
    expect(openDisks(adopted)).toEqual([disk, ...kept.map((layer) => layer.path)].sort());
    expect(await sums(slot)).toBe(before);
    await adopted.kill();
    await vm.kill();
    // An overlay of before and after the merge holds the same disk, over the longer and the shorter chain.
    for (const chain of [layers, kept]) {
      const backing: readonly DiskLayer[] = [{ path: disk, format: 'qcow2' }, ...chain];
      const spec = layered('adopt-merge', slot, await guests.makeBlankOverlay(), backing);
      const restored = await tracked(hypervisor.restore(spec, snapshot, soon()));
      expect(await sums(slot)).toBe(before);
      const killed = restored.compactDisk({ keepLayers: 1, maxBytesPerSecond: 300_000 }, soon()).catch(() => 'killed');
      await delay(200);
      await restored.kill();
      expect(await killed).not.toBe('merged');
    }
  });

  it('says that the disk of the host is full, and the VM goes on', async () => {
    const small = await guests.makeSmallDisk(40);
    const { vm, slot, disk, layers } = await grownVm('merge-full', 4);
    const before = await sums(slot);
    const snapshot = await sleep(vm);
    const overlay = await guests.makeBlankOverlay(undefined, small.dir);
    const backing: readonly DiskLayer[] = [{ path: disk, format: 'qcow2' }, ...layers];
    const full = await tracked(hypervisor.restore(layered('merge-full', slot, overlay, backing), snapshot, soon()));
    await small.fill(1_000_000);
    await expect(full.compactDisk(toTemplate, soon())).rejects.toThrow(/no space left/i);
    expect(await inGuest(slot, 'echo 3 >/proc/sys/vm/drop_caches; cd /; md5sum gen-*')).toBe(before);
    await small.free();
    expect(await full.compactDisk(toTemplate, soon())).toBe('merged');
    expect(await sums(slot)).toBe(before);
  });
});

describe('a full disk of the host', () => {
  it('lets the guest wait for space, without an error or a loss', async () => {
    const small = await guests.makeSmallDisk(40);
    const slot = await guests.makeSlot();
    const disk = await guests.makeBlankOverlay(undefined, small.dir);
    const vm = await tracked(hypervisor.boot(layered('full', slot, disk, [base()]), soon()));
    const stops: (DiskStop | undefined)[] = [];
    vm.onDiskStop((stop) => stops.push(stop));
    await untilGuestIsUp(slot);
    await small.fill(3_000_000);
    await inGuest(slot, 'head -c 10000000 /dev/urandom >/tmpfs/data; md5sum </tmpfs/data >/tmpfs/sum');
    await inGuest(slot, inBackground('cp /tmpfs/data /data; sync; echo written >/tmpfs/state'));
    await until('the VM stands still', 120_000, async () => stops.length > 0);
    expect(stops).toEqual([
      { operation: 'write', hostDiskFull: true, reason: expect.stringMatching(/no space left/i) },
    ]);

    // A pause now keeps the request that waits: it is carried out where the VM is restored with more space.
    await vm.pause(soon());
    const snapshot = await vm.saveSnapshot(await guests.makeSnapshotDir(), soon());
    const roomy = `${guests.dir}/roomy.qcow2`;
    await copyFile(disk, roomy);
    expect(stops.at(-1)).toBeUndefined();
    await vm.resume(soon());
    await until('the VM stands still again', 120_000, async () => stops.at(-1) !== undefined);
    await small.free();
    await until('the VM goes on', 120_000, async () => stops.at(-1) === undefined);
    expect(await waitForData(slot)).toBe('same');
    await vm.kill();
    await tracked(hypervisor.restore(layered('full', slot, roomy, [base()]), snapshot, soon()));
    expect(await waitForData(slot)).toBe('same');
  });

  async function waitForData(slot: TestSlot): Promise<string> {
    return inGuest(
      slot,
      `while [ ! -f /tmpfs/state ]; do sleep 0.2; done; echo 3 >/proc/sys/vm/drop_caches
       [ "$(md5sum </data)" = "$(cat /tmpfs/sum)" ] && ! dmesg | grep -q 'I/O error' && echo same`,
    );
  }
});
