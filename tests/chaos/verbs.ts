import { setTimeout as delay } from 'node:timers/promises';
import type { Answer, Api, Json } from './api.ts';
import type { Known, Population } from './population.ts';
import { checkScript, prepareScript, readTestimony, type Testimony } from './proof.ts';
import type { Random } from './random.ts';

/** Of every capsule. */
export const SHAPE = { vcpus: 1, memory_mb: 256 };
const EXEC_TIMEOUT_SEC = 90;

/** A snapshot that the run made, with what it must hold. */
export interface KnownSnapshot {
  readonly id: string;
  readonly source: Known;
}

export interface VerbDeps {
  readonly api: Api;
  readonly population: Population;
  readonly snapshots: KnownSnapshot[];
  readonly random: Random;
}

function sh(deps: VerbDeps, id: string, script: string): Promise<Answer> {
  const body = { cmd: '/bin/sh', args: ['-c', script], timeout_sec: EXEC_TIMEOUT_SEC };
  return deps.api.call('exec', 'POST', `/v1/capsules/${id}/exec`, body);
}

/** Asks a running capsule what it carries, and judges that. @returns undefined when it did not say, or is lost */
export async function check(deps: VerbDeps, known: Known, kept = true): Promise<Testimony | undefined> {
  const testimony = readTestimony(await sh(deps, known.id, checkScript()));
  if (!testimony || known.doomed) return undefined;
  return deps.population.judge(known, testimony, kept) ? testimony : undefined;
}

/** Gives a running capsule what it must keep. */
export async function prepare(deps: VerbDeps, known: Known): Promise<void> {
  const program = `p${deps.random.int(0, 2 ** 31)}`;
  // It may be replaced and the answer lost: from here on either program may be found.
  known.memoryKept = false;
  const testimony = readTestimony(await sh(deps, known.id, prepareScript(program)));
  if (testimony?.program !== program || !testimony.moving) return;
  known.sum ??= testimony.sum;
  known.program = program;
  known.floors.set(program, testimony.count);
  // Without a sleep of before there is nothing else that it could go back to.
  if (!known.slept) known.memoryKept = true;
}

export async function create(deps: VerbDeps): Promise<void> {
  const answer = await deps.api.call('create', 'POST', '/v1/capsules', SHAPE);
  if (answer.kind === 'done') await withNew(deps, [answer.body.id], undefined, (known) => prepare(deps, known));
}

export async function createFromSnapshot(deps: VerbDeps, { id, source }: KnownSnapshot): Promise<void> {
  const answer = await deps.api.call('create of snapshot', 'POST', '/v1/capsules', { template: id });
  if (answer.kind === 'done') await withNew(deps, [answer.body.id], source, (known) => check(deps, known));
}

/** All are taken at once, and one after the other is worked with. What a look found before the answer came is left to it. */
async function withNew(
  { population }: VerbDeps,
  ids: readonly string[],
  from: Known | undefined,
  run: (known: Known) => Promise<unknown>,
): Promise<void> {
  const taken = ids.filter((id) => !population.get(id)).map((id) => population.add(id, from));
  for (const known of taken) known.taken = true;
  try {
    for (const known of taken) await run(known);
  } finally {
    for (const known of taken) known.taken = false;
  }
}

/** Puts it to sleep; from an answer on it must come back from there. */
export async function pause(deps: VerbDeps, known: Known): Promise<void> {
  const before = await check(deps, known, !known.slept || known.memoryKept);
  if (known.doomed) return;
  const answer = await deps.api.call('pause', 'POST', `/v1/capsules/${known.id}/pause`);
  if (answer.kind !== 'done') return;
  known.slept = true;
  known.asleep = true;
  deps.population.shot.delete(known.id);
  if (!before) return;
  known.sum ??= before.sum;
  if (!before.moving) return;
  // What it slept with is now all that it can go back to.
  known.floors.clear();
  known.floors.set(before.program, before.count);
  known.memoryKept = true;
}

export async function resume(deps: VerbDeps, known: Known, memory: 'keep' | 'discard' = 'keep'): Promise<Answer> {
  known.asleep = false;
  if (memory === 'discard') known.memoryKept = false;
  const answer = await deps.api.call(`resume`, 'POST', `/v1/capsules/${known.id}/resume?memory=${memory}`);
  if (answer.kind !== 'done') return answer;
  deps.population.shot.delete(known.id);
  await check(deps, known);
  if (memory === 'discard' && !known.doomed) await prepare(deps, known);
  return answer;
}

export async function hibernate(deps: VerbDeps, known: Known): Promise<void> {
  await deps.api.call('hibernate', 'POST', `/v1/capsules/${known.id}/hibernate`);
}

export async function fork(deps: VerbDeps, known: Known, count: number): Promise<void> {
  const source = asSeen(known, await check(deps, known));
  if (known.doomed) return;
  const answer = await deps.api.call('fork', 'POST', `/v1/capsules/${known.id}/fork`, { count });
  if (answer.kind !== 'done') return;
  const ids = (answer.body.capsules as Json[]).map(({ id }) => id);
  await withNew(deps, ids, source, (child) => check(deps, child));
}

export async function snapshot(deps: VerbDeps, known: Known): Promise<void> {
  const source = asSeen(known, undefined);
  const answer = await deps.api.call('snapshot', 'POST', `/v1/capsules/${known.id}/snapshots`, {});
  if (answer.kind === 'done') deps.snapshots.push({ id: answer.body.id, source });
}

/** What a copy of it that is made now must show. */
function asSeen(known: Known, testimony: Testimony | undefined): Known {
  const floors = testimony?.moving ? [[testimony.program, testimony.count] as const] : known.floors;
  return { ...known, floors: new Map(floors) };
}

export async function deleteSnapshot(deps: VerbDeps, { id }: KnownSnapshot): Promise<void> {
  deps.snapshots.splice(0, Number.POSITIVE_INFINITY, ...deps.snapshots.filter((each) => each.id !== id));
  await deps.api.call('delete snapshot', 'DELETE', `/v1/snapshots/${id}`);
}

export async function destroy(deps: VerbDeps, known: Known): Promise<void> {
  known.doomed = true;
  await deps.api.call('destroy', 'DELETE', `/v1/capsules/${known.id}`);
}

/** Begins another verb and destroys the capsule in its middle. */
export async function destroyDuring(deps: VerbDeps, known: Known, status: string): Promise<void> {
  known.doomed = true;
  const verb =
    status === 'running'
      ? deps.random.weighted([
          [1, 'pause'],
          [1, 'fork'],
        ])
      : 'resume';
  const waitMs = deps.random.int(0, 800);
  const first = deps.api.call(`${verb}, destroyed`, 'POST', `/v1/capsules/${known.id}/${verb}`);
  await delay(waitMs);
  await destroy(deps, known);
  await first;
}
