import { rename } from 'node:fs/promises';
import { chooseHypervisor } from '@wrenn/hypervisor/choose-hypervisor';
import type { DiskLayer, Hypervisor, MemorySnapshot, RunningVm, VmSpec } from '@wrenn/hypervisor/hypervisor';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { inGuest, TestGuests, type TestSlot, untilGuestIsUp } from './support/hypervisor-guest.ts';

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

/** The guest's whole disk by its own sums, read from the device and not from the guest's caches. */
function sums(slot: TestSlot): Promise<string> {
  return inGuest(slot, 'sync; echo 3 >/proc/sys/vm/drop_caches; cd /; md5sum gen-*');
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
