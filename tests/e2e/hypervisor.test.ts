import { fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { copyFile, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { chooseHypervisor } from '@wrenn/hypervisor/choose-hypervisor';
import type {
  DiskLayer,
  Hypervisor,
  MemorySnapshot,
  RunningVm,
  VmProcessRecord,
  VmSpec,
} from '@wrenn/hypervisor/hypervisor';
import { QmpClient } from '@wrenn/hypervisor/qemu/qmp-client';
import { until } from '@wrenn/testing/until';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  consoleOf,
  inBackground,
  inGuest,
  TestGuests,
  type TestSlot,
  untilGuestIsUp,
} from './support/hypervisor-guest.ts';

let guests: TestGuests;
let hypervisor: Hypervisor;
const running = new Set<RunningVm>();

const soon = (timeoutMs = 60_000) => AbortSignal.timeout(timeoutMs);

async function tracked(start: Promise<RunningVm>): Promise<RunningVm> {
  const vm = await start;
  running.add(vm);
  return vm;
}

const boot = (spec: VmSpec) => tracked(hypervisor.boot(spec, soon()));
const restore = (spec: VmSpec, snapshot: MemorySnapshot) => tracked(hypervisor.restore(spec, snapshot, soon()));

function processExists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** A paused VM's snapshot; the VM is ended. */
async function sleep(vm: RunningVm, _slot: TestSlot): Promise<MemorySnapshot> {
  await vm.pause(soon());
  const snapshot = await vm.saveSnapshot(await guests.makeSnapshotDir(), soon());
  await vm.kill();
  return snapshot;
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

describe('a VM', () => {
  it('boots, stands still while paused, and goes on', async () => {
    const slot = await guests.makeSlot();
    const vm = await boot(guests.spec('boot', slot, await guests.makeOverlay()));
    await untilGuestIsUp(slot);
    expect(await consoleOf(slot)).toContain('test guest is up');
    await vm.pause(soon());
    await vm.pause(soon());
    await expect(inGuest(slot, 'echo up', { timeout: 1000 })).rejects.toThrow();
    await vm.resume(soon());
    await vm.resume(soon());
    expect(await inGuest(slot, 'echo up')).toBe('up');
    await vm.kill();
    expect(await vm.exited).toEqual({ reason: 'killed', detail: expect.any(String) });
    expect(processExists(vm.process.pid)).toBe(false);
    await vm.kill();
  });

  it('runs without rights: own user, no capabilities, seccomp, an empty root folder, its own namespace', async () => {
    const slot = await guests.makeSlot();
    const cgroup = join(guests.dir, 'cgroup.procs');
    await writeFile(cgroup, '');
    const disk = await guests.makeOverlay();
    const vm = await boot({ ...guests.spec('confined', slot, disk), cgroupProcs: [cgroup] });
    const proc = `/proc/${vm.process.pid}`;
    const status = readFileSync(`${proc}/status`, 'utf8');
    const field = (name: string) => new RegExp(`^${name}:\\s+(.*)$`, 'm').exec(status)?.[1]?.trim();
    expect(field('Uid')).toBe(Array(4).fill(slot.uid).join('\t'));
    expect(field('Gid')).toBe(Array(4).fill(slot.uid).join('\t'));
    expect(field('Groups')).toBe(String(slot.uid));
    expect(field('CapPrm')).toBe('0000000000000000');
    expect(field('CapEff')).toBe('0000000000000000');
    expect(field('NoNewPrivs')).toBe('1');
    expect(field('Seccomp')).toBe('2');
    expect(readFileSync(`${proc}/limits`, 'utf8')).toMatch(/^Max core file size +0 +0 /m);
    expect(field('NSsid')).toBe(String(vm.process.pid));
    expect(readlinkSync(`${proc}/root`)).toBe(join(slot.runDir, 'jail'));
    expect(readdirSync(`${proc}/root/`)).toEqual([]);
    expect(readlinkSync(`${proc}/ns/net`)).not.toBe(readlinkSync('/proc/self/ns/net'));
    expect(await readFile(cgroup, 'utf8')).toBe(`${vm.process.pid}\n`);
    const openFiles = new Set(readdirSync(`${proc}/fd`).map((fd) => readlinkSync(`${proc}/fd/${fd}`)));
    expect([...openFiles].filter((path) => path.startsWith('/')).sort()).toEqual(
      [
        ...['/dev/net/tun', '/dev/null', disk, guests.rootDiskPath],
        ...[join(slot.runDir, 'console.log'), join(slot.runDir, 'qemu.log')],
      ].sort(),
    );
  });

  it('that powers itself off has ended by the guest', async () => {
    const slot = await guests.makeSlot();
    const vm = await boot(guests.spec('poweroff', slot, await guests.makeOverlay()));
    await untilGuestIsUp(slot);
    await inGuest(slot, inBackground('poweroff -f'));
    expect(await vm.exited).toEqual({ reason: 'guest', detail: 'The guest powered itself off.' });
    expect(processExists(vm.process.pid)).toBe(false);
  });

  it('that panics has ended by the guest, with what the kernel said', async () => {
    const slot = await guests.makeSlot();
    const vm = await boot(guests.spec('panic', slot, await guests.makeOverlay()));
    await untilGuestIsUp(slot);
    await inGuest(slot, inBackground('echo c >/proc/sysrq-trigger'));
    expect(await vm.exited).toEqual({
      reason: 'guest',
      detail: 'Kernel panic - not syncing: sysrq triggered crash',
    });
  });

  it('whose hypervisor dies has crashed', async () => {
    const slot = await guests.makeSlot();
    const vm = await boot(guests.spec('crash', slot, await guests.makeOverlay()));
    process.kill(vm.process.pid, 'SIGKILL');
    expect(await vm.exited).toEqual({ reason: 'crashed', detail: expect.stringContaining('SIGKILL') });
    await expect(vm.pause(soon())).rejects.toThrow(/QEMU/);
  });

  it('cannot fill the disk of the host through its console', async () => {
    const slot = await guests.makeSlot();
    await boot(guests.spec('console', slot, await guests.makeOverlay()));
    await untilGuestIsUp(slot);
    const limitBytes = 1024 * 1024;
    const consolePath = join(slot.runDir, 'console.log');
    await inGuest(slot, 'yes "a line that is printed again and again" >/dev/console 2>&1 &');
    let largest = 0;
    await until('the console was cut', 60_000, async () => {
      const { size } = await stat(consolePath);
      largest = Math.max(largest, size);
      return size < largest && largest > limitBytes;
    });
    expect(largest).toBeLessThan(32 * limitBytes);
  });
});

describe('a start that fails', () => {
  it('says so with the end of the log and leaves no process', async () => {
    const slot = await guests.makeSlot();
    const path = join(guests.dir, 'no-such-disk');
    const spec = { ...guests.spec('broken', slot, path), disk: { path, format: 'raw' as const } };
    const error = await hypervisor.boot(spec, soon()).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'vm_start_failed' });
    expect(error).toHaveProperty('cause.message', expect.stringMatching(/^QEMU said: .*no-such-disk.*No such file/));
    expect(processesNamed('broken')).toEqual([]);
  });

  it('starts nothing on a disk that is no image', async () => {
    const slot = await guests.makeSlot();
    const spec = guests.spec('no-image', slot, guests.rootDiskPath);
    const error = await hypervisor.boot(spec, soon()).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'vm_start_failed' });
    expect(error).toHaveProperty('cause.message', expect.stringMatching(/is no qcow2 image/));
  });

  it('ends by its signal and leaves no process', async () => {
    const slot = await guests.makeSlot();
    const spec = guests.spec('aborted', slot, await guests.makeOverlay());
    await expect(hypervisor.boot(spec, AbortSignal.timeout(10))).rejects.toMatchObject({ name: 'TimeoutError' });
    expect(processesNamed('aborted')).toEqual([]);
  });

  it('refuses a snapshot of another identity or shape', async () => {
    const slot = await guests.makeSlot();
    const spec = guests.spec('mismatch', slot, await guests.makeOverlay());
    const snapshot = { dir: guests.dir, shape: spec.shape, identity: hypervisor.identity };
    const other = { ...snapshot, identity: { ...hypervisor.identity, version: '1.2.3' } };
    await expect(hypervisor.restore(spec, other, soon())).rejects.toThrow(/another version \(1\.2\.3\)/);
    const larger = { ...snapshot, shape: { vcpus: 1, memoryMb: 512 } };
    await expect(hypervisor.restore(spec, larger, soon())).rejects.toThrow(/512 MiB/);
  });

  function processesNamed(id: string): string[] {
    return readdirSync('/proc').filter((pid) => {
      if (!/^\d+$/.test(pid)) return false;
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(`guest=wrenn-${id}`);
      } catch {
        return false;
      }
    });
  }
});

describe('a snapshot', () => {
  it('starts two VMs side by side that do not see each other', async () => {
    const slot = await guests.makeSlot();
    const disk = await guests.makeOverlay();
    const vm = await boot(guests.spec('origin', slot, disk));
    await untilGuestIsUp(slot);
    await inGuest(slot, 'echo origin >/tmpfs/a; echo origin >/a; sync');
    const snapshot = await sleep(vm, slot);
    const memory = join(snapshot.dir, 'memory');
    const before = await digest(memory);
    const clones = [];
    for (const name of ['one', 'two']) {
      const cloneSlot = await guests.makeSlot();
      const overlay = await guests.makeOverlay({ path: disk, format: 'qcow2' });
      await restore(guests.spec(name, cloneSlot, overlay), snapshot);
      clones.push({ name, slot: cloneSlot });
    }
    for (const clone of clones) {
      expect(await inGuest(clone.slot, 'cat /tmpfs/a /a')).toBe('origin\norigin');
      await inGuest(clone.slot, `echo ${clone.name} >/tmpfs/a; echo ${clone.name} >/a; sync`);
    }
    for (const clone of clones) {
      expect(await inGuest(clone.slot, 'cat /tmpfs/a /a')).toBe(`${clone.name}\n${clone.name}`);
    }
    expect(await digest(memory)).toBe(before);
  });

  it('of a snapshot of a snapshot keeps memory and disk', async () => {
    const slot = await guests.makeSlot();
    let disk = await guests.makeOverlay();
    const layers: DiskLayer[] = [{ path: guests.rootDiskPath, format: 'raw' }];
    let vm = await boot(guests.spec('generations', slot, disk));
    await untilGuestIsUp(slot);
    for (let generation = 1; generation <= 3; generation++) {
      await inGuest(slot, `echo ${generation} >>/tmpfs/log; echo ${generation} >>/log; sync`);
      const snapshot = await sleep(vm, slot);
      layers.unshift({ path: disk, format: 'qcow2' });
      disk = await guests.makeOverlay({ path: disk, format: 'qcow2' });
      const spec = guests.spec('generations', slot, disk);
      vm = await restore({ ...spec, disk: { ...spec.disk, backing: [...layers] } }, snapshot);
    }
    expect(await inGuest(slot, 'cat /tmpfs/log')).toBe('1\n2\n3');
    expect(await inGuest(slot, 'cat /log')).toBe('1\n2\n3');
    // The disk itself, not only what the guest's cache holds of it.
    expect(await inGuest(slot, 'echo 3 >/proc/sys/vm/drop_caches; cat /log')).toBe('1\n2\n3');
  });

  it('leaves the VM paused with all of its disk in the file, and the VM goes on from there', async () => {
    const slot = await guests.makeSlot();
    const disk = await guests.makeOverlay();
    const vm = await boot(guests.spec('fork', slot, disk));
    await untilGuestIsUp(slot);
    await expect(vm.saveSnapshot(await guests.makeSnapshotDir(), soon())).rejects.toThrow(/needs it paused/);
    await inGuest(slot, 'head -c 20000000 /dev/urandom >/random; sync');
    const sum = await inGuest(slot, 'md5sum /random');
    await vm.pause(soon());
    const snapshot = await vm.saveSnapshot(await guests.makeSnapshotDir(), soon());
    await expect(inGuest(slot, 'echo up', { timeout: 1000 })).rejects.toThrow();
    // As after a failure later on: the one that is restored is the second without a run between.
    const again = await vm.saveSnapshot(await guests.makeSnapshotDir(), soon());
    expect(await digest(join(again.dir, 'memory'))).toBe(await digest(join(snapshot.dir, 'memory')));
    const frozen = `${disk}.frozen`;
    await copyFile(disk, frozen);
    await vm.resume(soon());
    expect(await inGuest(slot, 'rm /random; sync; echo up')).toBe('up');
    const cloneSlot = await guests.makeSlot();
    await restore(guests.spec('forked', cloneSlot, frozen), again);
    expect(await inGuest(cloneSlot, 'echo 3 >/proc/sys/vm/drop_caches; md5sum /random')).toBe(sum);
  });

  it('reads as zero where the guest has cleared what an earlier snapshot held, and grows by nothing for zeroes', async () => {
    const slot = await guests.makeSlot();
    let disk = await guests.makeOverlay();
    let vm = await boot(guests.spec('zeroes', slot, disk));
    await untilGuestIsUp(slot);
    await inGuest(slot, 'head -c 20000000 /dev/urandom >/tmpfs/cleared');
    const first = await sleep(vm, slot);
    disk = await guests.makeOverlay({ path: disk, format: 'qcow2' });
    vm = await restore(guests.spec('zeroes', slot, disk), first);
    await inGuest(slot, 'dd if=/dev/zero of=/tmpfs/cleared bs=1000000 count=20 conv=notrunc');
    await inGuest(slot, 'head -c 40000000 /dev/zero >/tmpfs/zeroes');
    await vm.pause(soon());
    const second = await vm.saveSnapshot(await guests.makeSnapshotDir(), soon());
    await expectEqualToQemus(vm, slot, join(second.dir, 'memory'), [{ at: 0, size: 256, offset: 0 }]);
    await vm.kill();
    const [before, after] = await Promise.all([first, second].map(({ dir }) => stat(join(dir, 'memory'))));
    expect(((after?.blocks ?? 0) - (before?.blocks ?? 0)) * 512).toBeLessThan(30_000_000);
    disk = await guests.makeOverlay({ path: disk, format: 'qcow2' });
    await restore(guests.spec('zeroes', slot, disk), second);
    const zeroes = createHash('md5').update(Buffer.alloc(20_000_000)).digest('hex');
    expect(await inGuest(slot, 'md5sum </tmpfs/cleared')).toBe(`${zeroes}  -`);
  });

  // Above 3 GiB the memory of an x86 microvm lies in two ranges; the snapshot holds one after the other.
  it.each([
    { vcpus: 1, memoryMb: 256, ranges: [{ at: 0, size: 256, offset: 0 }] },
    {
      vcpus: 2,
      memoryMb: 3584,
      ranges: [
        { at: 3008, size: 64, offset: 3008 },
        { at: 4096, size: 512, offset: 3072 },
      ],
    },
  ])(
    'of $vcpus vCPUs and $memoryMb MiB is what QEMU itself writes of the memory, after a boot and after a restore',
    async ({ vcpus, memoryMb, ranges }) => {
      const slot = await guests.makeSlot();
      const shape = { vcpus, memoryMb };
      let disk = await guests.makeOverlay();
      let vm = await boot(guests.spec('ranges', slot, disk, shape));
      await untilGuestIsUp(slot);
      await inGuest(slot, 'head -c 40000000 /dev/urandom >/tmpfs/random');
      const sum = await inGuest(slot, 'md5sum /tmpfs/random');
      for (const round of ['boot', 'restore']) {
        await vm.pause(soon());
        const snapshot = await vm.saveSnapshot(await guests.makeSnapshotDir(), soon());
        expect(snapshot.shape, round).toEqual(shape);
        await expectEqualToQemus(vm, slot, join(snapshot.dir, 'memory'), ranges);
        const { blocks } = await stat(join(snapshot.dir, 'memory'));
        expect(blocks * 512).toBeLessThan(250 * 1024 * 1024);
        await vm.kill();
        disk = await guests.makeOverlay({ path: disk, format: 'qcow2' });
        vm = await restore(guests.spec('ranges', slot, disk, shape), snapshot);
        expect(await inGuest(slot, 'md5sum /tmpfs/random')).toBe(sum);
        await inGuest(slot, 'head -c 5000000 /dev/urandom >/tmpfs/more');
      }
    },
  );
});

describe('adopting', () => {
  it('finds a VM again whose agent was killed, with all that can be done to it', async () => {
    const slot = await guests.makeSlot();
    const disk = await guests.makeOverlay();
    const spec = guests.spec('adopted', slot, disk);
    const agent = fork(new URL('./support/hypervisor-agent.ts', import.meta.url));
    agent.send(spec);
    const [record] = (await once(agent, 'message', { signal: soon() })) as [VmProcessRecord];
    agent.kill('SIGKILL');
    await once(agent, 'exit');
    expect(processExists(record.pid)).toBe(true);
    expect(await hypervisor.adopt('somebody-else', record, soon())).toBeUndefined();
    const stranger = { ...record, startTicks: String(Number(record.startTicks) + 1) };
    expect(await hypervisor.adopt('adopted', stranger, soon())).toBeUndefined();

    const first = await hypervisor.adopt('adopted', record, soon());
    first?.release();
    const vm = await hypervisor.adopt('adopted', record, soon());
    if (!vm) throw new Error('The VM was not adopted');
    running.add(vm);
    await untilGuestIsUp(slot);
    await inGuest(slot, 'echo kept >/tmpfs/a');
    await vm.pause(soon());
    const snapshot = await vm.saveSnapshot(await guests.makeSnapshotDir(), soon());
    expect(snapshot.shape).toEqual(spec.shape);
    await vm.kill();
    expect((await vm.exited).reason).toBe('killed');
    expect(await hypervisor.adopt('adopted', record, soon())).toBeUndefined();
    await restore(guests.spec('adopted', slot, await guests.makeOverlay({ path: disk, format: 'qcow2' })), snapshot);
    expect(await inGuest(slot, 'cat /tmpfs/a')).toBe('kept');
  });

  it('finds a VM that its agent left standing still in the middle of a snapshot, and lets it go on', async () => {
    const slot = await guests.makeSlot();
    const disk = await guests.makeOverlay();
    const booted = await boot(guests.spec('half-saved', slot, disk));
    await untilGuestIsUp(slot);
    await inGuest(slot, 'echo kept >/tmpfs/a; echo kept >/a');
    await booted.pause(soon());
    // Devices are written first, and QEMU gives its disk up for it: the agent ends while it reads the memory.
    const dir = await guests.makeSnapshotDir();
    const saving = booted.saveSnapshot(dir, soon());
    await until('the devices are saved', 10_000, () => readdirSync(dir).includes('devices'));
    booted.release();
    await saving.catch(() => {});

    const vm = await hypervisor.adopt('half-saved', booted.process, soon());
    if (!vm) throw new Error('The VM was not adopted');
    running.add(vm);
    await expect(inGuest(slot, 'echo up', { timeout: 1000 })).rejects.toThrow();
    await vm.resume(soon());
    expect(await inGuest(slot, 'echo more >>/a; sync; cat /tmpfs/a /a')).toBe('kept\nkept\nmore');
    const snapshot = await sleep(vm, slot);
    await restore(guests.spec('half-saved', slot, await guests.makeOverlay({ path: disk, format: 'qcow2' })), snapshot);
    expect(await inGuest(slot, 'echo 3 >/proc/sys/vm/drop_caches; cat /tmpfs/a /a')).toBe('kept\nkept\nmore');
    await booted.kill();
  });

  it('saves a VM that a killed agent left standing still only once it ran again', async () => {
    const slot = await guests.makeSlot();
    const disk = await guests.makeOverlay();
    const booted = await boot(guests.spec('half-paused', slot, disk));
    await untilGuestIsUp(slot);
    await inGuest(slot, 'echo kept >/tmpfs/a; echo kept >/a; sync');
    await booted.pause(soon());
    await booted.saveSnapshot(await guests.makeSnapshotDir(), soon());
    booted.release();
    const vm = await hypervisor.adopt('half-paused', booted.process, soon());
    if (!vm) throw new Error('The VM was not adopted');
    running.add(vm);
    await expect(sleep(vm, slot)).rejects.toThrow(/must run before it is saved/);
    await vm.resume(soon());
    const snapshot = await sleep(vm, slot);
    const overlay = await guests.makeOverlay({ path: disk, format: 'qcow2' });
    await restore(guests.spec('half-paused', slot, overlay), snapshot);
    expect(await inGuest(slot, 'echo 3 >/proc/sys/vm/drop_caches; cat /tmpfs/a /a')).toBe('kept\nkept');
    await booted.kill();
  });

  it('tells how an adopted VM ends', async () => {
    const slot = await guests.makeSlot();
    const booted = await boot(guests.spec('ending', slot, await guests.makeOverlay()));
    await untilGuestIsUp(slot);
    booted.release();
    const vm = await hypervisor.adopt('ending', booted.process, soon());
    await inGuest(slot, inBackground('poweroff -f'));
    expect((await vm?.exited)?.reason).toBe('guest');
    // The one who released it is its parent still.
    await booted.kill();
    expect(processExists(booted.process.pid)).toBe(false);
  });
});

/** Compares a snapshot's memory with what QEMU's own `pmemsave` writes of physical ranges. In MiB. */
async function expectEqualToQemus(
  vm: RunningVm,
  slot: TestSlot,
  memoryPath: string,
  ranges: readonly { at: number; size: number; offset: number }[],
): Promise<void> {
  const client = await QmpClient.connect(vm.process.controlSocket, soon());
  try {
    for (const { at, size, offset } of ranges) {
      const command = `pmemsave ${at * 1024 * 1024} ${size * 1024 * 1024} "/dump"`;
      await client.execute('human-monitor-command', { 'command-line': command }, { timeoutMs: 60_000 });
      const dump = join(slot.runDir, 'jail', 'dump');
      expect(await firstDifference(dump, memoryPath, offset, size)).toBeUndefined();
      await rm(dump);
    }
  } finally {
    client.close();
  }
}

/** The page at which two files differ, other than in the firmware's window, which is no memory of the guest's. */
async function firstDifference(dumpPath: string, memoryPath: string, offsetMb: number, sizeMb: number) {
  await using dump = await open(dumpPath);
  await using memory = await open(memoryPath);
  const [a, b] = [Buffer.alloc(1024 * 1024), Buffer.alloc(1024 * 1024)];
  for (let mb = 0; mb < sizeMb; mb++) {
    await dump.read(a, 0, a.length, mb * a.length);
    await memory.read(b, 0, b.length, (offsetMb + mb) * b.length);
    const end = offsetMb + mb === 0 ? 0xf_0000 : a.length;
    if (!a.subarray(0, end).equals(b.subarray(0, end))) return { mb: offsetMb + mb };
  }
  return undefined;
}

async function digest(path: string): Promise<string> {
  const hash = await crypto.subtle.digest('SHA-256', await readFile(path));
  return Buffer.from(hash).toString('hex');
}
