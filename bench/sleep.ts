import type { Platform } from '../tests/e2e/support/platform.ts';
import { type SleepFloor, SleepyFloorVm } from './floor-sleep.ts';
import { type Measurement, summarise, timed } from './measurement.ts';
import { hypervisorPss } from './memory.ts';
import {
  createCapsule,
  destroyCapsule,
  forkCapsule,
  hibernateCapsule,
  pauseCapsule,
  resumeCapsule,
  snapshotBytes,
} from './platform-calls.ts';

const SMALL_MB = 256;
const LARGE_MB = 1024;
const FORKS = 8;
/** What an idle fork may add, under emulation. */
const FORK_MIB = 60;

const PAUSE_AIM = { of: 'ratio', sign: '≤', limit: 1.5 } as const;
const WAKE_AIM = { of: 'ratio', sign: '≤', limit: 1.3 } as const;

interface Pair extends AsyncDisposable {
  readonly platform: Platform;
  /** The capsule and the floor's VM have the same memory, and both have slept once: the first time is unlike the others. */
  readonly id: string;
  readonly vm: SleepyFloorVm;
}

/**
 * Pause, resume, fork, hibernate and wake, beside a script that does as much with QEMU alone. Floor and Wrenn alternate, so
 * that the machine's mood hits both.
 *
 * @param samples how many samples to take of what a full run takes so many of
 */
export async function* measureSleep(
  platform: Platform,
  floor: SleepFloor,
  samples: (n: number) => number,
): AsyncGenerator<Measurement> {
  {
    await using pair = await openPair(platform, floor, LARGE_MB);
    const { pause, floorPause } = await sleeps(pair, samples(6));
    yield summarise(`pause, ${LARGE_MB} MiB`, 'ms', pause, { floor: floorPause, aim: PAUSE_AIM });
  }
  await using pair = await openPair(platform, floor, SMALL_MB);
  const { pause, floorPause, resume, floorResume } = await sleeps(pair, samples(12));
  yield summarise(`pause, ${SMALL_MB} MiB`, 'ms', pause, { floor: floorPause, aim: PAUSE_AIM });
  yield summarise(`resume, ${SMALL_MB} MiB`, 'ms', resume, { floor: floorResume, aim: WAKE_AIM });
  yield await forks(pair, 1, samples(8));
  yield await forks(pair, FORKS, samples(4));
  yield await memoryOfForks(pair);
  yield* await hibernations(pair, samples(4));
}

async function openPair(platform: Platform, floor: SleepFloor, memoryMb: number): Promise<Pair> {
  await using stack = new AsyncDisposableStack();
  const id = await createCapsule(platform, { memory_mb: memoryMb });
  stack.defer(() => destroyCapsule(platform, id));
  const vm = stack.use(await SleepyFloorVm.boot(floor, memoryMb));
  await sleeps({ platform, id, vm }, 1);
  const owned = stack.move();
  return { platform, id, vm, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

async function sleeps({ platform, id, vm }: Omit<Pair, keyof AsyncDisposable>, n: number) {
  const [pause, resume, floorPause, floorResume]: [number[], number[], number[], number[]] = [[], [], [], []];
  for (let i = 0; i < n; i++) {
    floorPause.push(await vm.pause());
    pause.push(await timed(() => pauseCapsule(platform, id)));
    floorResume.push(await vm.resume());
    resume.push(await timed(() => resumeCapsule(platform, id)));
  }
  return { pause, resume, floorPause, floorResume };
}

async function forks({ platform, id, vm }: Pair, count: number, n: number): Promise<Measurement> {
  const [samples, floor]: [number[], number[]] = [[], []];
  for (let i = 0; i < n; i++) {
    floor.push(await vm.fork(count));
    let children: string[] = [];
    samples.push(
      await timed(async () => {
        children = await forkCapsule(platform, id, count);
      }),
    );
    for (const child of children) await destroyCapsule(platform, child);
  }
  return summarise(`fork of ${count}, ${SMALL_MB} MiB`, 'ms', samples, { floor, aim: WAKE_AIM });
}

/** What each fork adds: its own share, and an equal part of what its source's share has become larger or smaller. */
async function memoryOfForks({ platform, id }: Pair): Promise<Measurement> {
  const [before = 0] = await hypervisorPss(platform, [id]);
  const children = await forkCapsule(platform, id, FORKS);
  try {
    const [source = 0, ...own] = await hypervisorPss(platform, [id, ...children]);
    const name = `memory (PSS) that an idle fork adds, ${FORKS} of ${SMALL_MB} MiB`;
    const samples = own.map((pss) => pss + (source - before) / FORKS);
    return summarise(name, 'MiB', samples, { aim: { of: 'p50', sign: '≤', limit: FORK_MIB } });
  } finally {
    for (const child of children) await destroyCapsule(platform, child);
  }
}

/** To a folder on the same disk. The first one stores the template's own files too, so it is not counted. */
async function hibernations({ platform, id }: Pair, n: number): Promise<Measurement[]> {
  const [down, up, downRate, upRate]: [number[], number[], number[], number[]] = [[], [], [], []];
  for (let i = -1; i < n; i++) {
    await pauseCapsule(platform, id);
    const megabytes = (await snapshotBytes(platform, id)) / 1e6;
    const downMs = await timed(() => hibernateCapsule(platform, id));
    const upMs = await timed(() => resumeCapsule(platform, id));
    if (i < 0) continue;
    down.push(downMs);
    up.push(upMs);
    downRate.push((1000 * megabytes) / downMs);
    upRate.push((1000 * megabytes) / upMs);
  }
  return [
    summarise(`hibernate, ${SMALL_MB} MiB`, 'ms', down),
    summarise('hibernate, by the bytes that its sleep holds', 'MB/s', downRate),
    summarise(`wake from hibernation, ${SMALL_MB} MiB`, 'ms', up),
    summarise('wake from hibernation, by the bytes that its sleep holds', 'MB/s', upRate),
  ];
}
