import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import { eq, sql } from 'drizzle-orm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Database, Db } from '../database/database.ts';
import { capsulePoints } from '../database/metrics-schema.ts';
import { tendPartitions } from '../database/partitions.ts';
import { capsules } from '../database/schema.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { type LiveHost, type MetricsRange, readCapsuleMetrics } from './capsule-metrics.ts';
import { METRIC_PARTITIONS } from './partitions.ts';
import { pullSamples } from './pull-samples.ts';
import { type HostSample, storeSamples } from './store-samples.ts';

let database: Database;
let db: Db;
const never = new AbortController().signal;
const NOW = new Date('2026-03-05T12:00:00Z');
const STARTED = '2026-03-05T11:00:00.000Z';
const ago = (seconds: number) => new Date(NOW.getTime() - seconds * 1000).toISOString();

beforeAll(async () => {
  database = await openTestDatabase();
  ({ db } = database);
});
afterAll(() => database[Symbol.asyncDispose]());
beforeEach(async () => {
  await db.execute(sql`TRUNCATE hosts, teams, capsule_points, capsule_counters, capsule_egress CASCADE`);
  await db.execute(sql`INSERT INTO teams (id, name, slug) VALUES ('team-1', 'a team', 'a-team')`);
  await db.execute(sql`INSERT INTO hosts (id, address, status) VALUES ('host-1', 'https://one.example', 'online'),
    ('host-2', 'https://two.example', 'online')`);
});

async function addCapsule(hostId = 'host-1'): Promise<string> {
  const id = newId('cl');
  await db.execute(sql`
    INSERT INTO capsules (id, team_id, host_id, template, status, vcpus, memory_mb, disk_request_mb, timeout_sec, envs,
      labels, versions, access_token)
    VALUES (${id}, 'team-1', ${hostId}, 'minimal', 'running', 2, 512, 0, 0, '{}', '{}', '{}', '')`);
  return id;
}

const sample = (id: string, at: string, fields: Partial<HostSample> = {}): HostSample => ({
  ...{ id, at, counted_from: STARTED, cpu_pct: 50, memory_bytes: 1000, disk_bytes: 4096 },
  ...{ net_rx_bytes: 0, net_tx_bytes: 0, ...fields },
});

async function read(id: string, range: MetricsRange = '10m', host?: LiveHost) {
  const [capsule] = await db.select().from(capsules).where(eq(capsules.id, id));
  if (!capsule) throw new Error('no such capsule');
  return (await readCapsuleMetrics(db, capsule, host, range, { now: NOW, signal: never })).points;
}

async function egressOf(id: string): Promise<Record<string, number>> {
  const { rows } = await db.execute<{ day: string; bytes: string }>(
    sql`SELECT day::text AS day, bytes FROM capsule_egress WHERE capsule_id = ${id}`,
  );
  return Object.fromEntries(rows.map(({ day, bytes }) => [day, Number(bytes)]));
}

describe('points', () => {
  it('are means of what was measured and sums of what went over the network, in every tier', async () => {
    const id = await addCapsule();
    await storeSamples(db, 'host-1', [
      sample(id, ago(40), { cpu_pct: 10, memory_bytes: 100, net_rx_bytes: 10, net_tx_bytes: 1 }),
      sample(id, ago(35), { cpu_pct: 30, memory_bytes: 300, net_rx_bytes: 30, net_tx_bytes: 2 }),
    ]);
    await storeSamples(db, 'host-1', [sample(id, ago(15), { cpu_pct: 80, net_rx_bytes: 100, net_tx_bytes: 7 })]);
    const seconds = NOW.getTime() / 1000;
    expect(await read(id)).toEqual([
      {
        timestamp_unix: seconds - 40,
        cpu_pct: 20,
        mem_bytes: 200,
        disk_bytes: 4096,
        net_rx_bytes: 30,
        net_tx_bytes: 2,
      },
      {
        timestamp_unix: seconds - 20,
        cpu_pct: 80,
        mem_bytes: 1000,
        disk_bytes: 4096,
        net_rx_bytes: 70,
        net_tx_bytes: 5,
      },
    ]);
    const two = [await read(id, '2h'), await read(id, '1h')];
    for (const points of two) expect(points.map((point) => point.net_rx_bytes)).toEqual([30, 70]);
    const [day] = await read(id, '24h');
    expect(day).toMatchObject({ timestamp_unix: seconds - 300, cpu_pct: 40, net_rx_bytes: 100, net_tx_bytes: 7 });
    expect(await egressOf(id)).toEqual({ '2026-03-05': 7 });
  });

  it.each([
    ['5m', 290, 310],
    ['10m', 590, 610],
    ['1h', 3570, 3630],
    ['2h', 7170, 7230],
    ['6h', 6 * 3600 - 300, 6 * 3600 + 300],
    ['12h', 12 * 3600 - 300, 12 * 3600 + 300],
    ['24h', 24 * 3600 - 300, 24 * 3600 + 300],
  ] as const)('range %s reaches back %d s and not %d s', async (range, within, beyond) => {
    const id = await addCapsule();
    await storeSamples(db, 'host-1', [sample(id, ago(beyond)), sample(id, ago(within))]);
    expect(await read(id, range)).toHaveLength(1);
  });

  it('survive sleep, a move and the end of their capsule', async () => {
    const id = await addCapsule();
    await storeSamples(db, 'host-1', [sample(id, ago(60), { net_tx_bytes: 5 })]);
    for (const status of ['paused', 'hibernated', 'stopped'] as const) {
      await db.update(capsules).set({ status }).where(eq(capsules.id, id));
      for (const range of ['10m', '2h', '24h'] as const) expect(await read(id, range)).toHaveLength(1);
    }
    await db.update(capsules).set({ status: 'running', hostId: 'host-2' }).where(eq(capsules.id, id));
    const woken = sample(id, ago(30), { counted_from: ago(35), net_tx_bytes: 3 });
    await storeSamples(db, 'host-2', [woken]);
    expect((await read(id)).map((point) => point.net_tx_bytes)).toEqual([5, 3]);
  });

  it('go with the partition of their time, and no others', async () => {
    const id = await addCapsule();
    await storeSamples(db, 'host-1', [sample(id, ago(30 * 3600)), sample(id, ago(5 * 3600)), sample(id, ago(30))]);
    const timesOf = async (tier: string) => {
      const { rows } = await db.execute<{ s: number }>(sql`
        SELECT round(extract(epoch FROM ${NOW.toISOString()}::timestamptz - at) / 3600)::int AS s FROM ${capsulePoints}
        WHERE tier = ${tier} ORDER BY at`);
      return rows.map(({ s }) => s);
    };
    for (const table of METRIC_PARTITIONS) await tendPartitions(db, table, NOW);
    expect(await timesOf('10m')).toEqual([0]);
    expect(await timesOf('2h')).toEqual([0]);
    expect(await timesOf('24h')).toEqual([30, 5, 0]);
    const later = new Date(NOW.getTime() + 49 * 3_600_000);
    for (const table of METRIC_PARTITIONS) await tendPartitions(db, table, later);
    expect(await timesOf('10m')).toEqual([]);
    expect(await timesOf('24h')).toEqual([5, 0]);
  });
});

describe('a measurement', () => {
  it('counts once, however often it comes and through whomever', async () => {
    const id = await addCapsule();
    const samples = [sample(id, ago(40), { net_tx_bytes: 5 }), sample(id, ago(30), { net_tx_bytes: 9, cpu_pct: 10 })];
    await Promise.all([1, 2, 3].map(() => storeSamples(db, 'host-1', samples)));
    await storeSamples(db, 'host-1', [...samples, ...samples, sample(id, ago(20), { net_tx_bytes: 10 })]);
    const points = await read(id);
    expect(points.map((point) => [point.cpu_pct, point.net_tx_bytes])).toEqual([
      [50, 5],
      [10, 4],
      [50, 1],
    ]);
    const counts = await db.select({ samples: capsulePoints.samples }).from(capsulePoints);
    expect(counts.reduce((sum, { samples: n }) => sum + n, 0)).toBe(3 * 3);
    expect(await egressOf(id)).toEqual({ '2026-03-05': 10 });
  });

  it('counts from zero where another VM has started, also with the same numbers', async () => {
    const id = await addCapsule();
    await storeSamples(db, 'host-1', [sample(id, ago(40), { net_rx_bytes: 100, net_tx_bytes: 100 })]);
    const again = { counted_from: ago(35), net_rx_bytes: 120, net_tx_bytes: 100 };
    await storeSamples(db, 'host-1', [
      sample(id, ago(30), again),
      sample(id, ago(20), { ...again, net_tx_bytes: 150 }),
    ]);
    expect((await read(id)).map((point) => [point.net_rx_bytes, point.net_tx_bytes])).toEqual([
      [100, 100],
      [120, 100],
      [0, 50],
    ]);
    // What the first VM's end has told too late does not count down.
    await storeSamples(db, 'host-1', [sample(id, ago(10), { net_tx_bytes: 100 })]);
    expect(await egressOf(id)).toEqual({ '2026-03-05': 250 });
  });

  it('of an agent that does not say when a VM started counts from zero when its counters fall', async () => {
    const id = await addCapsule();
    const { counted_from: _, ...plain } = sample(id, ago(40), { net_tx_bytes: 100 });
    await storeSamples(db, 'host-1', [plain, { ...plain, at: ago(30), net_tx_bytes: 130 }]);
    await storeSamples(db, 'host-1', [{ ...plain, at: ago(20), net_tx_bytes: 20 }]);
    expect(await egressOf(id)).toEqual({ '2026-03-05': 150 });
  });

  it('of a VM that is not a capsule of its host counts nothing', async () => {
    const id = await addCapsule('host-2');
    await storeSamples(db, 'host-1', [sample(id, ago(40), { net_tx_bytes: 5 }), sample('cl-unknown', ago(40))]);
    expect(await read(id)).toEqual([]);
    expect(await egressOf(id)).toEqual({});
  });

  it('by a clock that is off lies where it was taken', async () => {
    const id = await addCapsule();
    await db.execute(sql`UPDATE hosts SET clock_offset_ms = 3600000 WHERE id = 'host-1'`);
    const inAnHour = (seconds: number) => new Date(Date.parse(ago(seconds)) + 3_600_000).toISOString();
    const from = { counted_from: inAnHour(100) };
    await storeSamples(db, 'host-1', [sample(id, inAnHour(60), from)]);
    const live = { id: 'host-1', online: true, readStats: async () => [sample(id, inAnHour(20), from)] };
    expect((await read(id, '10m', live)).map((point) => NOW.getTime() / 1000 - point.timestamp_unix)).toEqual([60, 20]);
  });

  it('of the evening counts as egress of that day', async () => {
    const id = await addCapsule();
    await storeSamples(db, 'host-1', [
      sample(id, '2026-03-04T23:59:59Z', { net_tx_bytes: 5 }),
      sample(id, '2026-03-05T00:00:01Z', { net_tx_bytes: 7 }),
    ]);
    expect(await egressOf(id)).toEqual({ '2026-03-04': 5, '2026-03-05': 2 });
  });
});

describe('what only the host knows yet', () => {
  it('completes the finest points, once', async () => {
    const id = await addCapsule();
    const first = [sample(id, ago(40), { net_rx_bytes: 10 }), sample(id, ago(25), { net_rx_bytes: 15 })];
    const second = [sample(id, ago(22), { cpu_pct: 90, net_rx_bytes: 20 }), sample(id, ago(10), { net_rx_bytes: 50 })];
    await storeSamples(db, 'host-1', first);
    const asked: unknown[] = [];
    const host = {
      ...{ id: 'host-1', online: true },
      readStats: async (wanted: unknown) => {
        asked.push(wanted);
        return second;
      },
    };
    const rx = async (range: MetricsRange) => (await read(id, range, host)).map((point) => point.net_rx_bytes);
    expect(await rx('10m')).toEqual([10, 10, 30]);
    expect(asked).toEqual([{ id, since: new Date(ago(25)) }]);
    expect(await rx('1h')).toEqual([10, 5]);
    expect(asked).toHaveLength(1);
    // Stored meanwhile, it is the same.
    expect(await pullSamples(db, host, undefined, never)).toEqual(new Date(ago(10)));
    expect((await read(id)).map((point) => point.net_rx_bytes)).toEqual([10, 10, 30]);
  });

  it('is left out where the host does not answer', async () => {
    const id = await addCapsule();
    await storeSamples(db, 'host-1', [sample(id, ago(40))]);
    const failing = (error: Error): LiveHost => ({
      id: 'host-1',
      online: true,
      readStats: () => Promise.reject(error),
    });
    expect(await read(id, '10m', failing(new WrennError('host_unavailable')))).toHaveLength(1);
    expect(await read(id, '10m', failing(new DOMException('late', 'TimeoutError')))).toHaveLength(1);
    await expect(read(id, '10m', failing(new TypeError('a defect')))).rejects.toThrow('a defect');
  });
});
