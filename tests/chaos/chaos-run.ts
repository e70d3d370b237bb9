import { cp, mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { machineState } from '../e2e/support/leaks.ts';
import { type Platform, startPlatform } from '../e2e/support/platform.ts';
import { findOrphans, findRemains, reckon } from './aftermath.ts';
import { Api, type Unexpected } from './api.ts';
import { type CrowdLimits, client } from './crowd.ts';
import { type KillerDeps, killer, VICTIMS } from './killer.ts';
import { limitedDisk } from './limited-disk.ts';
import { Population } from './population.ts';
import { seededRandom } from './random.ts';
import { SHAPE } from './verbs.ts';

export interface ChaosOptions {
  readonly seed: number;
  /** Processes to kill in all. */
  readonly kills: number;
  /** How often the disk is filled. */
  readonly fills: number;
  readonly clients: number;
  readonly limits: CrowdLimits;
  readonly diskMb: number;
  /** Told every few seconds how far it is, and in the end what was found. */
  readonly tell: (line: string) => void;
}

export interface ChaosResult {
  readonly kills: number;
  readonly lost: string[];
  readonly stuck: string[];
  readonly orphans: string[];
  /** Verbs that ended well, lists and ends of capsules left out. */
  readonly deeds: number;
  /** Answers that nobody may get, and programs that ended by themselves. */
  readonly unexpected: string[];
}

/**
 * The disk is small so that it fills, and capsules may take more than it has: overlays begin empty. It is the disk that
 * must refuse, not the control plane.
 */
const PLACEMENT = { WRENN_PLACEMENT_DISK_OVERCOMMIT: '100', WRENN_PLACEMENT_MIN_DISK_FREE: '0' };
const PROGRESS_MS = 5000;
/** How long after a full disk a program may still end by itself. */
const FULL_AFTERMATH_MS = 20_000;
/** Lines of the logs that an unexpected answer is shown with. */
const LOG_LINES = 12;

/** `chaos: N kills, N lost, N stuck, N orphans` */
export function chaosLine({ kills, lost, stuck, orphans }: ChaosResult): string {
  return `chaos: ${kills} kills, ${lost.length} lost, ${stuck.length} stuck, ${orphans.length} orphans`;
}

/** Whether a run found nothing that may not be. */
export function isClean({ lost, stuck, orphans, unexpected }: ChaosResult): boolean {
  return [lost, stuck, orphans, unexpected].every(({ length }) => length === 0);
}

/**
 * Starts a platform on a small disk of its own, has clients use it while processes of all kinds are killed and the disk
 * is filled, and looks at what is left of it.
 */
export async function chaosRun(options: ChaosOptions): Promise<ChaosResult> {
  const { seed, limits, tell } = options;
  const random = seededRandom(seed);
  await using disk = await limitedDisk(options.diskMb);
  const before = await machineState(disk.dir);
  const env = { ...PLACEMENT, WRENN_WARM_POOL_MAX_MB: '256' };
  const platform = await startPlatform({ parent: disk.dir, env });
  try {
    const api = new Api(platform.baseUrl, platform.apiKey);
    const population = new Population();
    const kills = { agent: 0, 'control plane': 0, hypervisor: 0, client: 0, 'full disk': 0 };
    const deps: KillerDeps = { api, population, snapshots: [], random, platform, disk, kills, isFull: { now: false } };
    // Makes the template's snapshot, so that it is not the only thing that kills hit.
    const first = await api.insist('create', 'POST', '/v1/capsules', SHAPE);
    if (first.kind !== 'done') throw new Error(`nothing starts here: ${JSON.stringify(first)}`);
    await api.call('destroy', 'DELETE', `/v1/capsules/${first.body.id}`);
    tell('the platform is ready');
    const watching = new AbortController();
    const ends = watchPrograms(platform, deps, watching.signal);
    const progress = setInterval(() => tell(progressLine(deps)), PROGRESS_MS);
    try {
      const stop = new AbortController();
      const clients = Array.from({ length: options.clients }, () => client(deps, limits, stop.signal));
      await Promise.race([killer(deps, options.kills, options.fills), Promise.all(clients)]);
      stop.abort();
      tell('all is killed; waiting for what is under way');
      await platform.ready();
      await Promise.all(clients);
      const stuck = await reckon(deps, tell);
      const remains = await findRemains(platform.dir);
      watching.abort();
      await platform.controlPlane.end('SIGTERM');
      await platform.agent.end('SIGTERM');
      const orphans = await findOrphans(platform.dir, before);
      tell(progressLine(deps));
      const result = {
        kills: VICTIMS.reduce((sum, victim) => sum + kills[victim], 0),
        lost: population.losses.map(({ id, why }) => `${id}: ${why}`),
        stuck,
        orphans: [...remains, ...orphans],
        deeds: api.deeds,
        unexpected: [...(await ends), ...(await describe(platform, api.unexpected))],
      };
      for (const kind of ['lost', 'stuck', 'orphans', 'unexpected'] as const) {
        for (const what of result[kind]) tell(`${kind}: ${what}`);
      }
      if (!isClean(result)) tell(`the logs are in ${await keepLogs(platform, seed)}`);
      return result;
    } catch (error) {
      tell(`the run broke; the logs are in ${await keepLogs(platform, seed)}`);
      throw error;
    } finally {
      watching.abort();
      clearInterval(progress);
    }
  } finally {
    await platform[Symbol.asyncDispose]();
  }
}

/** Starts a program that ended by itself again, as a service manager does. It may do so only while the disk is full. */
async function watchPrograms(platform: Platform, { isFull }: KillerDeps, signal: AbortSignal): Promise<string[]> {
  const found: string[] = [];
  let fullAt = 0;
  while (!signal.aborted) {
    await delay(300, undefined, { signal }).catch(() => undefined);
    if (isFull.now) fullAt = Date.now();
    for (const program of [platform.agent, platform.controlPlane]) {
      if (signal.aborted || !program.hasEnded) continue;
      program.start();
      if (Date.now() - fullAt < FULL_AFTERMATH_MS) continue;
      found.push(`${program.logFile} ended by itself: ${(await tail(program.logFile)).join('\n')}`);
    }
  }
  return found;
}

function progressLine({ api, kills }: KillerDeps): string {
  const killed = Object.entries(kills).map(([kind, n]) => `${n} ${kind}`);
  const verbs = [...api.counts].map(([verb, counts]) => {
    return `${verb} ${[...counts].map(([how, n]) => (how === 'done' ? `${n}` : `${n} ${how}`)).join(' + ')}`;
  });
  return `killed ${killed.join(', ')} | ${verbs.join(', ')}`;
}

async function describe(platform: Platform, unexpected: readonly Unexpected[]): Promise<string[]> {
  const logs = await Promise.all(
    [platform.controlPlane, platform.agent].map(({ logFile }) => readFile(logFile, 'utf8').catch(() => '')),
  );
  const lines = logs.join('\n').split('\n');
  return unexpected.map(({ request, requestId, what }) => {
    const about = requestId === '' ? [] : lines.filter((line) => line.includes(`"${requestId}"`)).slice(-LOG_LINES);
    return [`${request}: ${what} (${requestId})`, ...about.map((line) => `    ${line.slice(0, 2000)}`)].join('\n');
  });
}

async function tail(path: string): Promise<string[]> {
  return (await readFile(path, 'utf8').catch(() => '')).trim().split('\n').slice(-3);
}

/** Logs of a run that found something outlive it. */
async function keepLogs(platform: Platform, seed: number): Promise<string> {
  const kept = await mkdtemp(join(tmpdir(), `wrenn-chaos-logs-${seed}-`));
  await cp(wrennDir(platform.dir).logs, kept, { recursive: true });
  return kept;
}
