import { machineState } from '../e2e/support/leaks.ts';
import { type Platform, startPlatform } from '../e2e/support/platform.ts';
import { findOrphans, findRemains } from './aftermath.ts';
import type { Json } from './api.ts';
import { measureProcess, type ProcessUse, slope } from './process-memory.ts';

const SHAPE = { vcpus: 1, memory_mb: 256 };
/** Rounds in which caches fill and code is compiled. */
const WARM_UP_ROUNDS = 5;
const MEASUREMENTS = 20;
const KIB = 1024;
const MIB = 1024 * KIB;

/**
 * How much live memory may grow over the second half of the rounds. Whatever is kept of a capsule by mistake holds its
 * record, which is more than 2 KiB; what the compiler and caches of Node still gather is within 1 MiB however many
 * rounds there are.
 */
const GROWTH = { bytes: MIB, bytesPerRound: 2 * KIB } as const;
/** The allocator keeps pages of its own: resident memory shows only large leaks outside of the heap. */
const RESIDENT_GROWTH = { bytes: 24 * MIB, bytesPerRound: 16 * KIB } as const;
/** VMs that wait and kept connections come and go. One that is left behind of each capsule is more in ten rounds. */
const DESCRIPTOR_GROWTH = 6;

export interface SoakOptions {
  readonly rounds: number;
  readonly tell: (line: string) => void;
}

/** One measurement. */
interface Point {
  readonly round: number;
  readonly agent: ProcessUse;
  readonly controlPlane: ProcessUse;
}

export interface SoakResult {
  /** How many creates were served from the warm pool. */
  readonly fromPool: number;
  /** What may not be: leaks, memory that grows, rounds that failed. Empty when all is well. */
  readonly problems: string[];
}

/** Creates and destroys capsules one after the other, and looks at what that leaves. */
export async function soak({ rounds, tell }: SoakOptions): Promise<SoakResult> {
  const before = await machineState('/nowhere');
  await using platform = await startPlatform({
    env: { WRENN_WARM_POOL_MAX_MB: '768', NODE_OPTIONS: '--inspect=127.0.0.1:0', LOG_LEVEL: 'info' },
  });
  const points: Point[] = [];
  const problems: string[] = [];
  let fromPool = 0;
  const every = Math.max(1, Math.floor(rounds / MEASUREMENTS));
  for (let round = 1 - WARM_UP_ROUNDS; round <= rounds; round++) {
    const created = await platform.call('POST', '/v1/capsules?trace=1', SHAPE);
    if (created.status !== 201) {
      problems.push(`create ${round} was answered with ${JSON.stringify(created)}`);
      break;
    }
    const { id, trace } = created.body as Json;
    if (round > 0 && trace.steps.some(({ name }: Json) => name === 'pool')) fromPool++;
    const destroyed = await platform.call('DELETE', `/v1/capsules/${id}`);
    if (destroyed.status !== 204) problems.push(`destroy ${round} was answered with ${JSON.stringify(destroyed)}`);
    if (round >= 0 && round % every === 0) {
      const point = await measure(platform, round);
      points.push(point);
      tell(row(point));
    }
  }
  problems.push(...growth(points));
  const remains = await findRemains(platform.dir);
  await platform.controlPlane.end('SIGTERM');
  await platform.agent.end('SIGTERM');
  const orphans = await findOrphans(platform.dir, before);
  problems.push(...[...remains, ...orphans].map((thing) => `left behind: ${thing}`));
  return { fromPool, problems };
}

async function measure({ agent, controlPlane }: Platform, round: number): Promise<Point> {
  return {
    round,
    agent: await measureProcess(agent.pid, agent.logFile),
    controlPlane: await measureProcess(controlPlane.pid, controlPlane.logFile),
  };
}

export const SOAK_HEADER = 'round   agent: live MiB  resident  open   control plane: live MiB  resident  open';

function row({ round, agent, controlPlane }: Point): string {
  const use = ({ liveBytes, residentBytes, descriptors }: ProcessUse, pad: number) =>
    `${(liveBytes / MIB).toFixed(2).padStart(pad)}  ${(residentBytes / MIB).toFixed(1).padStart(8)}  ${String(descriptors).padStart(4)}`;
  return `${String(round).padStart(5)}   ${use(agent, 15)}   ${use(controlPlane, 23)}`;
}

/** What grew in the second half, beyond what may. */
function growth(points: readonly Point[]): string[] {
  const half = points.slice(Math.floor(points.length / 2));
  const rounds = (half.at(-1)?.round ?? 0) - (half[0]?.round ?? 0);
  return (['agent', 'controlPlane'] as const).flatMap((name) => {
    const grown = (of: keyof ProcessUse) => slope(half.map((point) => [point.round, point[name][of]])) * rounds;
    const bound = ({ bytes, bytesPerRound }: typeof GROWTH | typeof RESIDENT_GROWTH) => bytes + bytesPerRound * rounds;
    const [live, resident] = [grown('liveBytes'), grown('residentBytes')];
    const middle = Math.floor(half.length / 2);
    const [earlier, later] = [half.slice(0, middle), half.slice(middle)].map((part) => {
      return Math.min(...part.map((point) => point[name].descriptors));
    });
    const text = (bytes: number) => `${(bytes / KIB).toFixed(0)} KiB in ${rounds} rounds`;
    return [
      ...(live > bound(GROWTH) ? [`live memory of the ${name} grew by ${text(live)}`] : []),
      ...(resident > bound(RESIDENT_GROWTH) ? [`resident memory of the ${name} grew by ${text(resident)}`] : []),
      ...((later ?? 0) - (earlier ?? 0) > DESCRIPTOR_GROWTH ? [`the ${name} has ever more files open`] : []),
    ];
  });
}
