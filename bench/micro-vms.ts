import { wrennDir } from '@wrenn/config/wrenn-dir';
import { newestKernel, readImage } from '@wrenn/guest-image/catalog';
import { claimOwner } from '@wrenn/host-agent/network/claims';
import { SlotPool } from '@wrenn/host-agent/network/slot-pool';
import type { QemuProgram } from '@wrenn/hypervisor/qemu/machine';
import { pino } from 'pino';
import { startPlatform } from '../tests/e2e/support/platform.ts';
import { floorCgroups } from './floor-sleep.ts';
import { type FloorSource, restoreFloorVm, settleFloorVm } from './floor-vm.ts';
import { measureExec, measureFiles } from './guest-calls.ts';
import { type Measurement, summarise, timed } from './measurement.ts';
import { measureMemory } from './memory.ts';
import { createCapsule, destroyCapsule } from './platform-calls.ts';
import { type RunOptions, type Section, sampleCount } from './run-options.ts';
import { measureSleep } from './sleep.ts';
import { measureColdBoot, measureCreate } from './start-up.ts';
import { measureWarmPool, POOL_ENV } from './warm-pool.ts';

/** The sections that take a whole platform with microVMs. */
export async function measureMicroVms(
  options: RunOptions,
  program: QemuProgram,
  report: (...rows: Measurement[]) => void,
): Promise<void> {
  const count = (n: number) => sampleCount(options, n);
  const wants = (section: Section) => options.sections.has(section);
  console.log('starting a platform');
  await using platform = await startPlatform({ env: { LOG_LEVEL: 'info' } });
  await using slots = new SlotPool({ owner: claimOwner(platform.dir), size: () => 0, log: pino({ level: 'warn' }) });
  await using cgroups = await floorCgroups(program, platform.dir);
  const image = await readImage(wrennDir(platform.dir), 'minimal');
  const kernel = await newestKernel(wrennDir(platform.dir));
  if (!kernel) throw new Error('there is no kernel');

  // First, because what it starts the floor from is the platform's one template snapshot.
  if (wants('start') || wants('guest')) await measureOneCapsule(image);
  if (wants('memory')) report(await measureMemory(platform));
  if (wants('sleep')) {
    const floor = { program, kernel, rootfsPath: image.rootfsPath, dir: platform.dir, slots, cgroups };
    for await (const row of measureSleep(platform, floor, count)) report(row);
  }
  if (wants('pool')) {
    await using pooled = await startPlatform({ env: POOL_ENV });
    for await (const row of measureWarmPool(pooled, platform, count)) report(row);
  }

  async function measureOneCapsule({ rootfsPath, manifest }: typeof image): Promise<void> {
    const slot = await slots.acquire(AbortSignal.timeout(30_000));
    try {
      const floor: FloorSource = { program, dir: platform.dir, slot, cgroups };
      let first = '';
      const firstMs = await timed(async () => {
        first = await createCapsule(platform);
      });
      if (wants('start')) {
        report(summarise('first start of a new shape (boot and snapshot)', 'ms', [firstMs]));
        report(await measureColdBoot(floor, rootfsPath, count));
        report(...(await measureCreate(platform, floor, manifest.defaultUser, count)));
      }
      if (wants('guest')) {
        await using vm = await restoreFloorVm(floor);
        const envd = await settleFloorVm(vm, manifest.defaultUser);
        report(await measureExec(platform, first, envd, count));
        report(...(await measureFiles(platform, first, vm, envd, count)));
      }
      await destroyCapsule(platform, first);
    } finally {
      await slots.release(slot);
    }
  }
}
