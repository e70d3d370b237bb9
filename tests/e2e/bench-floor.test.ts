import { readdir, rm } from 'node:fs/promises';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { newestKernel, readImage } from '@wrenn/guest-image/catalog';
import { claimOwner } from '@wrenn/host-agent/network/claims';
import { SlotPool } from '@wrenn/host-agent/network/slot-pool';
import { pino } from 'pino';
import { expect, it } from 'vitest';
import { floorCgroups, floorProgram, SleepyFloorVm } from '../../bench/floor-sleep.ts';
import { leaksSince, machineState } from './support/leaks.ts';
import { temporaryWrennDir } from './support/platform.ts';

it('the floor of the benchmark sleeps, wakes and forks, and leaves nothing', async () => {
  const dir = await temporaryWrennDir();
  const before = await machineState(dir);
  try {
    const kernel = await newestKernel(wrennDir(dir));
    const { rootfsPath } = await readImage(wrennDir(dir), 'minimal');
    if (!kernel) throw new Error('there is no kernel');
    {
      await using slots = new SlotPool({ owner: claimOwner(dir), size: () => 0, log: pino({ level: 'silent' }) });
      const program = await floorProgram();
      await using cgroups = await floorCgroups(program, dir);
      await using vm = await SleepyFloorVm.boot({ program, kernel, rootfsPath, dir, slots, cgroups }, 256);
      await expect(vm.resume()).rejects.toThrow('does not sleep');
      expect(await vm.pause()).toBeGreaterThan(0);
      await expect(vm.pause()).rejects.toThrow('sleeps');
      await expect(vm.fork(1)).rejects.toThrow('sleeps');
      expect(await vm.resume()).toBeGreaterThan(0);
      expect(await vm.fork(2)).toBeGreaterThan(0);
      expect(await vm.pause()).toBeGreaterThan(0);
    }
    expect((await readdir(dir)).filter((name) => name.startsWith('floor-'))).toEqual([]);
    expect(await leaksSince(before, dir)).toEqual([]);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
