import { insertCapsule } from '@wrenn/control-plane/capsules/capsule-store';
import { compareInventory } from '@wrenn/control-plane/capsules/inventory';
import { reconcileHost } from '@wrenn/control-plane/capsules/reconcile';
import { judge } from '@wrenn/control-plane/capsules/verdict';
import { acceptHeartbeat } from '@wrenn/control-plane/hosts/accept-heartbeat';
import { recordHeartbeat } from '@wrenn/control-plane/hosts/heartbeat';
import { openHost } from '@wrenn/control-plane/hosts/host';
import type { HostEvents } from '@wrenn/control-plane/hosts/watch';
import { insertOperation } from '@wrenn/control-plane/operations/operation-store';
import { placeCapsule } from '@wrenn/control-plane/placement/place-capsule';
import { DEFAULT_PLACEMENT } from '@wrenn/control-plane/placement/placement-settings';
import { checkPool, shareOf } from '@wrenn/control-plane/usage/pools';
import { newId } from '@wrenn/protocol/ids';
import type { Heartbeat } from '@wrenn/protocol/rest/hosts';
import { pino } from 'pino';
import { CAPSULES_OF_A_HOST, type FleetDatabase, openFleetDatabase } from './fleet-database.ts';
import { type Comparison, type Measurement, quantile, summarise, timed } from './measurement.ts';

/** Each with CAPSULES_OF_A_HOST capsules. */
const SIZES = [10, 100, 1000] as const;
/** As many as a control plane has connections to its database. */
const AT_ONCE = 10;
const WARM_UP = 20;
const PLACEMENTS = 300;
const HEARTBEATS = 200;
/** Creates at once, for each host. Small fleets get more of them, so that there is something to measure. */
const BURST = { 10: 30, 100: 5, 1000: 2 } as const;
const OWNER = 1;

const SHAPE = { vcpus: 1, memoryMb: 512, diskRequestMb: 0 } as const;
const log = pino({ level: 'warn' });
const placement = { settings: DEFAULT_PLACEMENT };

const PLACEMENT_AIM = { of: 'p99', sign: '≤', limit: 20 } as const;
/** What does not grow with the fleet takes the same in a large one; caches are colder there. */
const FLAT_AIM = { of: 'ratio', sign: '≤', limit: 1.5 } as const;

type Size = (typeof SIZES)[number];

interface Kind {
  readonly name: string;
  readonly unit: Measurement['unit'];
  /** Of the largest fleet. Its floor is what the smallest took. */
  readonly comparison?: Comparison;
}

const KINDS = {
  // What the machine was like meanwhile.
  nothing: { name: 'SELECT 1', unit: 'ms' },
  placement: { name: 'placement', unit: 'ms', comparison: { aim: PLACEMENT_AIM } },
  create: { name: 'transaction of a create', unit: 'ms' },
  heartbeat: { name: `heartbeat with ${CAPSULES_OF_A_HOST} capsules`, unit: 'ms', comparison: { aim: FLAT_AIM } },
  inventory: { name: 'comparison of its inventory alone', unit: 'ms', comparison: { aim: FLAT_AIM } },
  heartbeats: { name: `heartbeats, ${AT_ONCE} at once`, unit: 'requests/s' },
  burstPlacement: { name: `placement in a burst, ${AT_ONCE} at once`, unit: 'ms' },
  burst: { name: `creates in a burst, ${AT_ONCE} at once`, unit: 'requests/s' },
  spread: { name: 'capsules that a host got of a burst', unit: 'capsules' },
} as const satisfies Record<string, Kind>;
type KindName = keyof typeof KINDS;

/**
 * What hosts cost the database as there are more of them: rows are real, agents are not there. Prints how each figure
 * grows.
 *
 * @param count samples to take of what a full run takes that many of
 */
export async function* measureFleet(
  count: (n: number) => number,
  print: (growth: object) => void,
): AsyncGenerator<Measurement> {
  await using fleet = await openFleetDatabase();
  const taken = new Map<Size, Record<KindName, readonly number[]>>();
  for (const size of SIZES) {
    await fleet.growTo(size);
    taken.set(size, await measureSize(fleet, size, count));
  }
  const smallest = taken.get(SIZES[0]);
  for (const [size, figures] of taken) {
    const isLargest = size === SIZES.at(-1);
    for (const [key, { name, unit, ...kind }] of Object.entries(KINDS) as [KindName, Kind][]) {
      const floor = smallest && size !== SIZES[0] ? { floor: smallest[key] } : {};
      yield summarise(`${name}, ${size} hosts`, unit, figures[key], {
        ...floor,
        ...(isLargest ? kind.comparison : {}),
      });
    }
  }
  print(growthOf(taken));
}

/** Rows of a table: each figure by the size of the fleet, as its median and 99th percentile. */
function growthOf(taken: ReadonlyMap<Size, Record<KindName, readonly number[]>>): object {
  const cell = (samples: readonly number[], unit: Measurement['unit']) => {
    const [low, middle, high] = [0, 0.5, unit === 'ms' ? 0.99 : 1].map((q) => quantile(samples, q).toPrecision(3));
    if (unit === 'ms') return `p50 ${middle}, p99 ${high} ms`;
    return unit === 'capsules' ? `${Number(low)} to ${Number(high)}` : `${middle}/s`;
  };
  const rows = (Object.entries(KINDS) as [KindName, Kind][]).map(([key, { name, unit }]) => {
    const cells = [...taken].map(([size, figures]) => [`${size} hosts`, cell(figures[key], unit)]);
    return [name, Object.fromEntries(cells)];
  });
  return Object.fromEntries(rows);
}

async function measureSize(
  fleet: FleetDatabase,
  size: Size,
  count: (n: number) => number,
): Promise<Record<KindName, readonly number[]>> {
  const heart = await heartOf(fleet);
  for (let i = 0; i < count(WARM_UP); i++) {
    await create(fleet);
    await heart.beat();
  }
  const samples = { placement: [] as number[], create: [] as number[], heartbeat: [] as number[] };
  for (let i = 0; i < count(PLACEMENTS); i++) {
    let placementMs = 0;
    samples.create.push(
      await timed(async () => {
        placementMs = await create(fleet);
      }),
    );
    samples.placement.push(placementMs);
  }
  for (let i = 0; i < count(HEARTBEATS); i++) samples.heartbeat.push(await timed(heart.beat));
  const nothing: number[] = [];
  for (let i = 0; i < count(PLACEMENTS); i++) nothing.push(await timed(() => fleet.database.pool.query('SELECT 1')));
  const inventory: number[] = [];
  for (let i = 0; i < count(HEARTBEATS); i++) inventory.push(await timed(heart.compare));
  const heartbeats = await rates(count(HEARTBEATS), heart.beat);
  const burst = await burstOf(fleet, count(size * BURST[size]));
  return { nothing, ...samples, inventory, heartbeats, ...burst };
}

/**
 * All that a create does before its host is asked.
 *
 * @returns how long the search for a host took, in milliseconds
 */
async function create({ database, teamIds }: FleetDatabase): Promise<number> {
  const { db } = database;
  const teamId = teamIds[Math.floor(Math.random() * teamIds.length)] ?? '';
  const { vcpus, memoryMb, diskRequestMb: diskMb } = SHAPE;
  return db.transaction(async (tx) => {
    let hostId = '';
    const placementMs = await timed(async () => {
      hostId = await placeCapsule(tx, placement, { teamId, vcpus, memoryMb, diskMb, template: 'minimal' });
    });
    const capsule = await insertCapsule(tx, {
      ...{ id: newId('cl'), teamId, hostId, template: 'minimal', ...SHAPE },
      ...{ timeoutSec: 0, envs: {}, labels: { job: 'burst' }, versions: {}, accessToken: 'none' },
    });
    await checkPool(tx, teamId, shareOf(capsule));
    await insertOperation(tx, { teamId, capsuleId: capsule.id, kind: 'capsule.create', actor: 'system', owner: OWNER });
    return placementMs;
  });
}

/** Many creates, each as soon as one before has ended. */
async function burstOf(fleet: FleetDatabase, creates: number) {
  const { database } = fleet;
  await fleet.endNewOnes();
  const before = await countByHost(database);
  const burstPlacement: number[] = [];
  const burst = await rates(creates, async () => {
    burstPlacement.push(await create(fleet));
  });
  const after = await countByHost(database);
  const spread = [...after].map(([hostId, there]) => there - (before.get(hostId) ?? 0));
  await fleet.endNewOnes();
  return { burst, burstPlacement, spread };
}

async function countByHost({ pool }: FleetDatabase['database']): Promise<Map<string, number>> {
  const { rows } = await pool.query<{ host_id: string; running: number }>('SELECT host_id, running FROM host_load');
  return new Map(rows.map(({ host_id, running }) => [host_id, running]));
}

/** How often a second, in each tenth of the runs. */
async function rates(runs: number, run: () => Promise<unknown>): Promise<number[]> {
  const started = performance.now();
  const endsMs: number[] = [];
  let begun = 0;
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      while (begun++ < runs) {
        await run();
        endsMs.push(performance.now() - started);
      }
    }),
  );
  const part = Math.ceil(endsMs.length / 10);
  return Array.from({ length: Math.ceil(endsMs.length / part) }, (_, at) => {
    const ends = endsMs.slice(at * part, (at + 1) * part);
    const from = at === 0 ? 0 : (endsMs[at * part - 1] ?? 0);
    return (ends.length * 1000) / ((ends.at(-1) ?? 0) - from);
  });
}

/** Heartbeats of hosts in turn, with all that they have, as the control plane takes them. */
async function heartOf({ database, hostIds }: FleetDatabase) {
  const { db } = database;
  const events = new Map<string, HostEvents>();
  const inventories = await readInventories(database);
  const unused = () => Promise.reject(new Error('no capsule differs from what its host says'));
  const trust = { caCertPem: '', certPem: '', keyPem: '' };
  for (const id of hostIds) {
    const host = openHost(id, { address: 'https://127.0.0.1:1' }, trust, log);
    host.online = true;
    const stub = { signal: AbortSignal.abort(), log } as const;
    events.set(id, reconcileHost(host, { db, ...stub, destroy: unused } as never));
  }
  const pool = {
    get: () => ({ online: true }) as never,
    eventsOf: (id: string) => events.get(id),
    nudge: () => undefined,
    changed: () => undefined,
  };
  const controlPlanes = { list: async () => [] };
  const record = (id: string, heartbeat: Heartbeat) => recordHeartbeat({ db, pool, controlPlanes, log }, id, heartbeat);
  let turn = 0;
  const next = () => hostIds[turn++ % hostIds.length] ?? '';
  return {
    beat: async () => {
      const id = next();
      const answer = await acceptHeartbeat({ db, record }, { id }, heartbeatOf(inventories.get(id) ?? []), '127.0.0.1');
      if (answer.status !== 'online') throw new Error(`a heartbeat was answered with ${answer.status}`);
    },
    compare: async () => {
      const id = next();
      const { unknown } = await compareInventory(db, inventories.get(id) ?? [], id, judge as never);
      if (unknown.length > 0) throw new Error('a host has what the database does not know');
    },
  };
}

function heartbeatOf(vms: Heartbeat['vms']): Heartbeat {
  return {
    ...{ sent_at: new Date().toISOString(), agent_version: '0.1.0', cpu_cores: 192, memory_mb: 262_144 },
    ...{ memory_free_mb: 200_000, disk_mb: 8_000_000, disk_free_mb: 6_000_000, load_1m: 1 },
    ...{ templates: ['minimal', 'python', 'node'], vms, samples: [] },
  };
}

async function readInventories({ pool }: FleetDatabase['database']): Promise<Map<string, Heartbeat['vms']>> {
  const { rows } = await pool.query<{ host_id: string; id: string; generation: number; is_asleep: boolean }>(
    `SELECT host_id, id, generation, status = 'paused' AS is_asleep FROM capsules WHERE status IN ('running', 'paused')`,
  );
  const found = new Map<string, Heartbeat['vms']>();
  for (const { host_id, id, generation, is_asleep } of rows) {
    const vms = found.get(host_id) ?? [];
    found.set(host_id, vms);
    vms.push({ id, generation, state: is_asleep ? 'paused' : 'running' });
  }
  return found;
}
