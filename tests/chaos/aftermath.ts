import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { openDatabase } from '@wrenn/control-plane/database/database';
import pino from 'pino';
import { type MachineState, machineState } from '../e2e/support/leaks.ts';
import type { Answer } from './api.ts';
import { type Known, PASSING } from './population.ts';
import { check, resume, type VerbDeps } from './verbs.ts';

const SETTLE_TIMEOUT_MS = 240_000;
const WAKE_TIMEOUT_MS = 180_000;
/** What is left in the object store or on a host is looked for each minute. */
const REMAINS_TIMEOUT_MS = 100_000;
const AT_ONCE = 2;

/** Waits until no capsule is in a state that something must lead out of. @returns those that still are, and why */
export async function settle({ api, population }: VerbDeps): Promise<string[]> {
  for (const deadline = Date.now() + SETTLE_TIMEOUT_MS; ; await delay(500)) {
    const capsules = await population.look(api);
    const passing = capsules?.filter(({ status }) => PASSING.includes(status));
    if (passing?.length === 0) return [];
    if (Date.now() < deadline) continue;
    return passing
      ? passing.map(({ id, status }) => `${id} is still ${status}`)
      : ['the control plane does not answer'];
  }
}

/** Wakes everything that ever slept, and checks what it carries; then destroys every capsule and every snapshot. */
export async function reckon(deps: VerbDeps, tell: (line: string) => void): Promise<string[]> {
  const { api, population } = deps;
  const stuck = await settle(deps);
  const listed = await population.look(api, { insist: true });
  const states = new Map<string, string>(listed?.map(({ id, status }) => [id, status]));
  const left = population.all();
  tell(`checking ${left.length} capsules, ${left.filter(({ slept }) => slept).length} of which have slept`);
  const work = left.values();
  const one = async () => {
    for (const known of work) {
      await reckonOne(deps, known, states.get(known.id));
      const answer = await api.insist('destroy', 'DELETE', `/v1/capsules/${known.id}`);
      if (!isGone(answer)) stuck.push(`${known.id} cannot be destroyed: ${JSON.stringify(answer)}`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  for (const { id } of (await population.look(api, { insist: true })) ?? []) {
    const answer = await api.insist('destroy', 'DELETE', `/v1/capsules/${id}`);
    if (!isGone(answer)) stuck.push(`${id} cannot be destroyed: ${JSON.stringify(answer)}`);
  }
  const snapshots = await api.insist('list snapshots', 'GET', '/v1/snapshots?type=snapshot');
  for (const { id } of snapshots.kind === 'done' ? snapshots.body : []) {
    await api.insist('delete snapshot', 'DELETE', `/v1/snapshots/${id}`);
  }
  return [...stuck, ...(await settle(deps))];
}

async function reckonOne(deps: VerbDeps, known: Known, status: string | undefined): Promise<void> {
  const { population } = deps;
  if (status === undefined) {
    population.lose(known, 'the API does not list it any more');
    return;
  }
  if (known.slept) {
    // What runs now is left to show that the capsule can sleep and wake: it goes by its last complete sleep or a newer one.
    if (status === 'running') await check(deps, known);
    else await wake(deps, known);
  } else if (status === 'running') {
    await check(deps, known);
  } else if (known.sum !== undefined && !population.shot.has(known.id)) {
    population.lose(known, `it ran, is ${status} now, and nobody had killed its hypervisor`);
  }
}

async function wake(deps: VerbDeps, known: Known): Promise<void> {
  let answer: Answer = { kind: 'unknown' };
  for (const deadline = Date.now() + WAKE_TIMEOUT_MS; Date.now() < deadline; await delay(500)) {
    answer = await resume(deps, known);
    if (answer.kind === 'done' || known.doomed) return;
    if (answer.kind === 'refused' && /^(snapshot|capsule_not_found)/.test(answer.code)) break;
  }
  const why = answer.kind === 'refused' ? `${answer.code}: ${answer.message}` : 'no answer';
  deps.population.lose(known, `it does not wake: ${why}`);
}

function isGone(answer: Answer): boolean {
  if (answer.kind === 'done') return answer.status === 204;
  return answer.kind === 'refused' && answer.code === 'capsule_not_found';
}

/** What the database and the object store of a platform without capsules still hold; waits for what is just going. */
export async function findRemains(dir: string): Promise<string[]> {
  for (const deadline = Date.now() + REMAINS_TIMEOUT_MS; ; await delay(1000)) {
    const found = [...(await rows(dir)), ...(await objects(dir))];
    if (found.length === 0 || Date.now() > deadline) return found;
  }
}

/**
 * What a stopped platform without capsules left of the machine. It has given back what it keeps ready itself, so nothing
 * but templates may be there.
 */
export async function findOrphans(dir: string, before: MachineState): Promise<string[]> {
  for (const deadline = Date.now() + 20_000; ; await delay(500)) {
    const found = (await ownState(dir, before)).filter((thing) => !isTemplate(thing, dir));
    if (found.length === 0 || Date.now() > deadline) return found;
  }
}

async function rows(dir: string): Promise<string[]> {
  await using database = await openDatabase({ url: undefined, dir, log: pino({ level: 'silent' }) });
  const client = await database.connectClient();
  try {
    const { rows: found } = await client.query<{ what: string }>(`
      SELECT 'operation ' || kind || ' of ' || capsule_id || ' at ' || step AS what FROM operations WHERE state = 'running'
      UNION ALL SELECT 'snapshot row ' || id || ' ' || status FROM snapshots
      UNION ALL SELECT 'object to delete ' || object_key FROM object_deletions
      UNION ALL SELECT 'capsule row ' || id || ' ' || status FROM capsules WHERE status <> 'stopped'`);
    return found.map(({ what }) => what);
  } finally {
    await client.end();
  }
}

async function objects(dir: string): Promise<string[]> {
  const root = join(dir, 'objects');
  const entries = await readdir(root, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries.flatMap((entry) => {
    const path = join(entry.parentPath, entry.name).slice(root.length + 1);
    // What snapshots share, and the name of the store, stay.
    return entry.isFile() && !/^(shared|store)\//.test(path) ? [`object ${path}`] : [];
  });
}

/** What was not there before the platform, without the cgroups of other agents of this machine. */
async function ownState(dir: string, before: MachineState): Promise<string[]> {
  const tag = createHash('sha256').update(dir).digest('hex').slice(0, 12);
  const state = [...(await machineState(dir))].filter((thing) => !before.has(thing));
  return state.filter((thing) => !thing.startsWith('cgroup ') || thing.includes(`/wrenn/${tag}/`));
}

function isTemplate(thing: string, dir: string): boolean {
  return thing.startsWith(`file ${join(dir, 'template-snapshots')}/`);
}
