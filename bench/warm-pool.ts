import { readTail } from '@wrenn/host-agent/vms/vm-folder';
import { until } from '@wrenn/testing/until';
import type { Platform } from '../tests/e2e/support/platform.ts';
import { type Measurement, summarise, timed } from './measurement.ts';
import { createCapsule, destroyCapsule, exec } from './platform-calls.ts';

const CREATES = 100;
/** Of those, how many have one without the pool beside them. */
const COMPARED = 25;
const BURST = 20;
/** What the pool has learned counts less as time passes, also while it fills. */
const LEARNED = 24;
const DEFAULT_MB = 512;
const FILL_TIMEOUT_MS = 300_000;
/** Holds the last report of the pool whatever else the agent has logged since. */
const LOG_TAIL_BYTES = 65_536;
const AIM = { of: 'ratio', sign: '≤', limit: 0.4 } as const;

/** Settings of a platform whose pool holds a whole burst. Its agent must log what becomes of the pool. */
export const POOL_ENV = { WRENN_WARM_POOL_MAX_MB: String(BURST * DEFAULT_MB), LOG_LEVEL: 'info' };

/**
 * Create until the first command has answered: from the warm pool, beside a platform that has none, in turns. Each waits
 * until the pool is full, so that filling it slows neither.
 */
export async function* measureWarmPool(
  pooled: Platform,
  plain: Platform,
  samples: (n: number) => number,
): AsyncGenerator<Measurement> {
  const what = 'create → first command, from the warm pool, beside without';
  await destroyCapsule(plain, await createCapsule(plain));
  await destroyCapsule(pooled, await createCapsule(pooled));
  const [single, floorSingle]: [number[], number[]] = [[], []];
  const [creates, compared] = [samples(CREATES), samples(COMPARED)];
  for (let i = 0; i < creates; i++) {
    await untilFull(pooled, 1);
    if (i * compared >= floorSingle.length * creates) floorSingle.push(...(await burst(plain, 1)));
    single.push(...(await burst(pooled, 1)));
  }
  yield summarise(what, 'ms', single, { floor: floorSingle, aim: AIM });
  await learn(pooled);
  await untilFull(pooled, BURST);
  const floorTogether = await burst(plain, BURST);
  const together = await burst(pooled, BURST);
  yield summarise(`${what}, ${BURST} at once`, 'ms', together, { floor: floorTogether, aim: AIM });
}

/** Has the pool see a burst. */
async function learn(platform: Platform): Promise<void> {
  const ids = await Promise.all(Array.from({ length: LEARNED }, () => createCapsule(platform)));
  await Promise.all(ids.map((id) => destroyCapsule(platform, id)));
}

/** Milliseconds from the request to the answer of the first command of so many capsules at once. */
async function burst(platform: Platform, count: number): Promise<number[]> {
  const ids: string[] = [];
  const all = await Promise.all(
    Array.from({ length: count }, () =>
      timed(async () => {
        const id = await createCapsule(platform);
        ids.push(id);
        await exec(platform, id, 'true');
      }),
    ),
  );
  await Promise.all(ids.map((id) => destroyCapsule(platform, id)));
  return all;
}

/** Waits until at least so many VMs wait, and as many as the pool wants. */
async function untilFull({ agent }: Platform, atLeast: number): Promise<void> {
  await until(`${atLeast} VMs wait in the warm pool`, FILL_TIMEOUT_MS, async () => {
    const lines = (await readTail(agent.logFile, LOG_TAIL_BYTES)).toString().split('\n').slice(0, -1);
    const report = lines.findLast((line) => line.startsWith('{') && line.includes('"waiting":'));
    const { waiting, wanted } = JSON.parse(report ?? '{"waiting":0,"wanted":1}');
    return waiting >= atLeast && waiting >= Math.min(wanted, BURST);
  });
}
