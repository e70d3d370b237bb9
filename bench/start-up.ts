import type { Platform } from '../tests/e2e/support/platform.ts';
import { bootFloorVm, type FloorSource, restoreFloorVm, runTrue, settleFloorVm } from './floor-vm.ts';
import { type Measurement, summarise, timed } from './measurement.ts';
import { createCapsule, destroyCapsule, exec } from './platform-calls.ts';

const COLD_BOOTS = 3;
const CREATES = 30;
const AIM = { of: 'ratio', sign: '≤', limit: 1.3 } as const;

/** Power-on to an answering guest agent, with the hypervisor alone. */
export async function measureColdBoot(
  floor: FloorSource,
  rootfsPath: string,
  count: (n: number) => number,
): Promise<Measurement> {
  const samples: number[] = [];
  for (let i = 0; i < count(COLD_BOOTS); i++) {
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
 * restore and one request to envd. The second floor goes on to what a capsule cannot do without, /init and the command
 * itself: what is above that is Wrenn's own. All alternate, so that the machine's mood hits all.
 *
 * @param user as whom the command runs, the template's default
 */
export async function measureCreate(
  platform: Platform,
  floor: FloorSource,
  user: string,
  count: (n: number) => number,
): Promise<Measurement[]> {
  const toCommand: number[] = [];
  const toRunning: number[] = [];
  const floorToRequest: number[] = [];
  const floorToCommand: number[] = [];
  for (let i = 0; i < count(CREATES); i++) {
    const floorStarted = performance.now();
    {
      await using vm = await restoreFloorVm(floor);
      floorToRequest.push(performance.now() - floorStarted);
      await runTrue(await settleFloorVm(vm, user));
      floorToCommand.push(performance.now() - floorStarted);
    }
    const started = performance.now();
    const id = await createCapsule(platform);
    toRunning.push(performance.now() - started);
    await exec(platform, id, 'true');
    toCommand.push(performance.now() - started);
    await destroyCapsule(platform, id);
  }
  return [
    summarise('create → first command answered', 'ms', toCommand, { floor: floorToRequest, aim: AIM }),
    summarise('create → first command, beside restore + /init + command', 'ms', toCommand, { floor: floorToCommand }),
    summarise('create → running', 'ms', toRunning, { floor: floorToRequest }),
  ];
}
