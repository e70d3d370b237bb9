import type { Platform } from '../tests/e2e/support/platform.ts';
import { bootFloorVm, type FloorSource, restoreFloorVm } from './floor-vm.ts';
import { type Measurement, summarise, timed } from './measurement.ts';
import { createCapsule, destroyCapsule, exec } from './platform-calls.ts';

const COLD_BOOTS = 3;
const CREATES = 30;

/** Power-on to an answering guest agent, with the hypervisor alone. */
export async function measureColdBoot(floor: FloorSource, rootfsPath: string): Promise<Measurement> {
  const samples: number[] = [];
  for (let i = 0; i < COLD_BOOTS; i++) {
    samples.push(
      await timed(async () => {
        await using _ = await bootFloorVm(floor, rootfsPath);
      }),
    );
  }
  return summarise('cold boot → guest agent answers', 'ms', samples);
}

/**
 * Create by the API until the first command has answered, from a template snapshot. The floor is the start of QEMU, the
 * restore and one request to envd; both alternate, so that the machine's mood hits both.
 */
export async function measureCreate(platform: Platform, floor: FloorSource): Promise<Measurement[]> {
  const toCommand: number[] = [];
  const toRunning: number[] = [];
  const floorSamples: number[] = [];
  for (let i = 0; i < CREATES; i++) {
    let vm: AsyncDisposable | undefined;
    floorSamples.push(
      await timed(async () => {
        vm = await restoreFloorVm(floor);
      }),
    );
    await vm?.[Symbol.asyncDispose]();
    const started = performance.now();
    const id = await createCapsule(platform);
    toRunning.push(performance.now() - started);
    await exec(platform, id, 'true');
    toCommand.push(performance.now() - started);
    await destroyCapsule(platform, id);
  }
  return [
    summarise('create → first command answered', 'ms', toCommand, floorSamples),
    summarise('create → running', 'ms', toRunning, floorSamples),
  ];
}
