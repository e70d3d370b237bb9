import { setTimeout as delay } from 'node:timers/promises';
import type { Json } from './api.ts';
import type { Known } from './population.ts';
import {
  check,
  create,
  createFromSnapshot,
  deleteSnapshot,
  destroy,
  destroyDuring,
  fork,
  hibernate,
  pause,
  prepare,
  resume,
  snapshot,
  type VerbDeps,
} from './verbs.ts';

export interface CrowdLimits {
  /** Capsules that run at once, about. */
  readonly running: number;
  readonly capsules: number;
  readonly snapshots: number;
}

type Deed = () => Promise<unknown>;

/** One of several clients that work side by side: does one verb after the other until the signal fires. */
export async function client(deps: VerbDeps, limits: CrowdLimits, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const capsules = await deps.population.look(deps.api);
    const deed = capsules && choose(deps, limits, capsules);
    await deed?.();
    await delay(deed ? 200 : 400, undefined, { signal }).catch(() => undefined);
  }
}

function choose(deps: VerbDeps, limits: CrowdLimits, capsules: Json[]): Deed | undefined {
  const { random, snapshots, population } = deps;
  const awake = capsules.filter(({ status }) => !['paused', 'hibernated', 'error'].includes(status)).length;
  const isHibernating = capsules.some(({ status }) => status === 'hibernating');
  const free = capsules.flatMap(({ id, status, memory }) => {
    const known = population.get(id);
    return known && !known.taken && !known.doomed ? [{ known, status, memory }] : [];
  });
  const chosen = random.pick(free);
  const kept = random.pick(snapshots);
  const isRoom = awake < limits.running && capsules.length < limits.capsules;
  const options: (readonly [number, Deed])[] = [];
  if (isRoom) options.push([2, () => create(deps)]);
  if (isRoom && kept) options.push([2, () => createFromSnapshot(deps, kept)]);
  if (kept && random.chance(snapshots.length < limits.snapshots ? 0.03 : 0.3)) {
    options.push([1, () => deleteSnapshot(deps, kept)]);
  }
  if (chosen) options.push(...deedsFor(deps, limits, chosen, awake, isHibernating));
  return options.length === 0 ? undefined : random.weighted(options);
}

function deedsFor(
  deps: VerbDeps,
  limits: CrowdLimits,
  { known, status }: { known: Known; status: string },
  awake: number,
  isHibernating: boolean,
): (readonly [number, Deed])[] {
  const { random, snapshots, population } = deps;
  const on = (run: () => Promise<unknown>): Deed => {
    return async () => {
      known.taken = true;
      try {
        await run();
      } finally {
        known.taken = false;
      }
    };
  };
  const isRoom = awake < limits.running;
  const wake: (readonly [number, Deed])[] = isRoom
    ? [
        [4, on(() => resume(deps, known))],
        [0.3, on(() => resume(deps, known, 'discard'))],
      ]
    : [];
  const keep: (readonly [number, Deed])[] =
    snapshots.length < limits.snapshots ? [[1, on(() => snapshot(deps, known))]] : [];
  switch (status) {
    case 'running':
      if (!known.program) return [[9, on(() => prepare(deps, known))]];
      return [
        [2, on(() => check(deps, known))],
        [isRoom ? 3 : 7, on(() => pause(deps, known))],
        // Else there never is room: creates take it first.
        ...(awake < limits.running + 2 ? [[3, on(() => fork(deps, known, random.int(1, 2)))] as const] : []),
        ...keep,
        [awake > limits.running ? 2 : 0.4, on(() => destroy(deps, known))],
        [0.3, on(() => destroyDuring(deps, known, status))],
      ];
    case 'paused':
      return [
        ...wake,
        ...keep,
        // It takes long and begins anew after each kill: with many at once nothing else would happen.
        ...(isHibernating ? [] : [[1, on(() => hibernate(deps, known))] as const]),
        [0.2, on(() => destroy(deps, known))],
        [0.2, on(() => destroyDuring(deps, known, status))],
      ];
    case 'hibernated':
      return [...wake, [0.2, on(() => destroy(deps, known))]];
    case 'error':
      if (known.slept) return wake;
      return [[3, on(() => buryFailed(deps, known))]];
    default:
      return [];
  }

  /** One that never slept may be an error only because its start failed, or its hypervisor was killed. */
  async function buryFailed(deps: VerbDeps, dead: Known): Promise<void> {
    if (dead.sum !== undefined && !population.shot.has(dead.id)) {
      population.lose(dead, 'it ran and is an error, though nobody had killed its hypervisor');
    }
    await destroy(deps, dead);
  }
}
