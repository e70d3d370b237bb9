import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import type { Platform, Program } from '../e2e/support/platform.ts';
import { toAnswer } from './api.ts';
import type { LimitedDisk } from './limited-disk.ts';
import type { VerbDeps } from './verbs.ts';

/** How long the killer waits for something to be done between two kills. */
const PATIENCE_MS = 20_000;
const CLIENT = join(import.meta.dirname, 'client-process.ts');

export const VICTIMS = ['agent', 'control plane', 'hypervisor', 'client'] as const;
export type Victim = (typeof VICTIMS)[number];

export interface KillerDeps extends VerbDeps {
  readonly platform: Platform;
  readonly disk: LimitedDisk;
  /** How many were killed, and how often the disk was filled. */
  readonly kills: Record<Victim | 'full disk', number>;
  readonly isFull: { now: boolean };
}

/** Kills until so many processes were killed; fills the disk now and then. */
export async function killer(deps: KillerDeps, total: number, fills: number): Promise<void> {
  const { random, kills } = deps;
  const fillAt = new Set(Array.from({ length: fills }, (_, i) => Math.floor(((i + random.next()) * total) / fills)));
  let filling: Promise<void> | undefined;
  for (let killed = 0; killed < total; ) {
    await deedsDone(deps, random.int(0, 3));
    await delay(random.int(0, 2000));
    if (fillAt.delete(killed)) filling = Promise.all([filling, fillDisk(deps)]).then(() => undefined);
    kills[await killOne(deps)]++;
    killed++;
  }
  await filling;
}

/** Chooses until there is something of that kind to kill. */
async function killOne(deps: KillerDeps): Promise<Victim> {
  for (;;) {
    const victim = deps.random.weighted<Victim>([
      [4, 'agent'],
      [3, 'control plane'],
      [3, 'hypervisor'],
      [4, 'client'],
    ]);
    if (await kill(deps, victim)) return victim;
  }
}

/** Lets some verbs end well between two kills, however slow the machine is; but not while they cannot. */
async function deedsDone({ api, isFull }: KillerDeps, count: number): Promise<void> {
  const goal = api.deeds + count;
  const deadline = Date.now() + PATIENCE_MS;
  while (api.deeds < goal && Date.now() < deadline && !isFull.now) await delay(100);
}

/** @returns false when there was none to kill */
async function kill(deps: KillerDeps, victim: Victim): Promise<boolean> {
  const { platform, random } = deps;
  switch (victim) {
    case 'agent':
      return restart(deps, platform.agent);
    case 'control plane':
      return restart(deps, platform.controlPlane);
    case 'hypervisor':
      return killHypervisor(deps);
    case 'client':
      return killClient(deps, random.int(20, 1200));
  }
}

/** Mostly waits until all is well again: a platform that never is does nothing that a kill could hit. */
async function restart({ platform, random, isFull }: KillerDeps, program: Program): Promise<boolean> {
  await program.restart();
  if (!isFull.now && random.chance(0.8)) await platform.ready();
  return true;
}

async function killHypervisor({ platform, population, random }: KillerDeps): Promise<boolean> {
  const found = random.pick(await hypervisors(platform.dir));
  if (!found) return false;
  const record = await readFile(join(wrennDir(platform.dir).capsule(found.vmId), 'record.json'), 'utf8').catch(
    () => '{}',
  );
  const { id } = JSON.parse(record) as { id?: string };
  if (id) population.shot.add(id);
  try {
    process.kill(found.pid, 'SIGKILL');
    return true;
  } catch {
    return false;
  }
}

/** Hypervisors of VMs of this WRENN_DIR, and no others. */
async function hypervisors(dir: string): Promise<{ pid: number; vmId: string }[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      const vmId = command.split(`${wrennDir(dir).capsules}/`)[1]?.match(/^[^/\0",]+/)?.[0];
      return vmId && /^[^\0]*qemu-system-/.test(command) ? [{ pid: Number(pid), vmId }] : [];
    }),
  );
  return found.flat();
}

/** Has a process of its own ask for a verb and kills it in the middle: the verb goes on. */
async function killClient(deps: KillerDeps, afterMs: number): Promise<boolean> {
  const { api, population, random } = deps;
  const capsules = (await population.look(api)) ?? [];
  const free = capsules.flatMap(({ id, status }) => {
    const known = population.get(id);
    return known && !known.taken && !known.doomed && known.sum !== undefined ? [{ known, status }] : [];
  });
  const chosen = random.pick(free);
  const verb = chosen && verbFor(chosen.status, random.next());
  if (!chosen || !verb) return false;
  const { known } = chosen;
  known.taken = true;
  try {
    if (verb === 'resume') known.asleep = false;
    const requestId = api.nextRequestId();
    const body =
      verb === 'exec' ? { cmd: 'sleep', args: ['2'] } : verb === 'fork' || verb === 'snapshots' ? {} : undefined;
    const path = `/v1/capsules/${known.id}/${verb}`;
    const headers = JSON.stringify(api.headers(requestId, body));
    const args = [CLIENT, `${api.baseUrl}${path}`, 'POST', headers, ...(body ? [JSON.stringify(body)] : [])];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] });
    const exited = once(child, 'close');
    let output = '';
    child.stdout.on('data', (data) => {
      output += data;
    });
    // Counted from the start of its program, which takes some time itself.
    await Promise.race([exited, delay(300 + afterMs)]);
    const isAlive = child.exitCode === null && child.signalCode === null;
    if (isAlive) child.kill('SIGKILL');
    await exited;
    if (!isAlive && output !== '') {
      const { status, text } = JSON.parse(output) as { status: number; text: string };
      api.count(`${verb} by process`, `POST ${path}`, toAnswer(status, text, requestId));
    }
    return isAlive;
  } finally {
    known.taken = false;
  }
}

function verbFor(status: string, chance: number): string | undefined {
  if (status === 'running') return chance < 0.4 ? 'pause' : chance < 0.6 ? 'exec' : chance < 0.8 ? 'fork' : 'snapshots';
  if (status === 'paused') return chance < 0.4 ? 'hibernate' : chance < 0.8 ? 'resume' : 'snapshots';
  return status === 'hibernated' ? 'resume' : undefined;
}

async function fillDisk({ disk, random, kills, isFull }: KillerDeps): Promise<void> {
  isFull.now = true;
  kills['full disk']++;
  await disk.fill(random.chance(0.5) ? 0 : random.int(1, 60));
  await delay(random.int(2000, 8000));
  await disk.free();
  isFull.now = false;
}
