import { newId } from '@wrenn/protocol/ids';
import { until } from '@wrenn/testing/until';
import { sql } from 'drizzle-orm';
import { pino } from 'pino';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import type { Database, Db } from '../database/database.ts';
import { teamSamples } from '../database/metrics-schema.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { SAMPLE_PERIOD_MS, sampleTeams, sampleTeamsRegularly } from './team-sampler.ts';
import { readTeamStats } from './team-stats.ts';

let database: Database;
let db: Db;
beforeAll(async () => {
  database = await openTestDatabase();
  ({ db } = database);
});
afterAll(() => database[Symbol.asyncDispose]());
beforeEach(async () => {
  await db.execute(sql`TRUNCATE hosts, teams, team_samples CASCADE`);
  await db.execute(sql`INSERT INTO hosts (id, address, status) VALUES ('host-1', 'https://host.example', 'online')`);
});

const NOW = new Date('2026-03-05T12:00:00Z');
const ago = (seconds: number) => new Date(NOW.getTime() - seconds * 1000);

async function addTeam(): Promise<string> {
  const id = newId('team');
  await db.execute(sql`INSERT INTO teams (id, name, slug) VALUES (${id}, ${id}, ${id})`);
  return id;
}

async function addCapsule(teamId: string, status: string, memoryMb = 513): Promise<string> {
  const id = newId('cl');
  await db.execute(sql`
    INSERT INTO capsules (id, team_id, host_id, template, status, vcpus, memory_mb, disk_request_mb, timeout_sec, envs,
      labels, versions, access_token)
    VALUES (${id}, ${teamId}, 'host-1', 'minimal', ${status}, 2, ${memoryMb}, 0, 0, '{}', '{}', '{}', '')`);
  return id;
}

const setStatus = (id: string, status: string) =>
  db.execute(sql`UPDATE capsules SET status = ${status} WHERE id = ${id}`);

async function putSample(teamId: string, sampledAt: Date, runningCount: number): Promise<void> {
  const values = { teamId, sampledAt, runningCount, vcpusReserved: 2 * runningCount, memoryMbReserved: 512 };
  await db.insert(teamSamples).values(values);
}

it('samples what a team runs and half of what sleeps, each rounded up', async () => {
  const team = await addTeam();
  await addCapsule(team, 'running');
  await addCapsule(team, 'paused');
  await addCapsule(team, 'paused');
  await sampleTeams(db, new Date());
  const { current, series, peaks } = await readTeamStats(db, team, '5m', new Date());
  const held = { running_count: 1, vcpus_reserved: 2, memory_mb_reserved: 513 + 257 + 257 };
  expect(current).toEqual(held);
  expect(peaks).toEqual(held);
  expect([series.running, series.vcpus, series.memory_mb]).toEqual([[1], [2], [1027]]);
});

it('goes on with zeros for teams whose capsules are gone, and begins with the first capsule', async () => {
  const [gone, never] = [await addTeam(), await addTeam()];
  const capsule = await addCapsule(gone, 'running');
  await sampleTeams(db, ago(30));
  await setStatus(capsule, 'stopped');
  await sampleTeams(db, ago(20));
  await sampleTeams(db, ago(10));
  const { series, current, peaks } = await readTeamStats(db, gone, '5m', NOW);
  expect(series.running).toEqual([1, 0, 0]);
  expect(series.memory_mb).toEqual([513, 0, 0]);
  expect(current.running_count).toBe(0);
  expect(peaks.running_count).toBe(1);
  expect((await readTeamStats(db, never, '5m', NOW)).series.labels).toEqual([]);
});

it('writes one sample a period, however many control planes do it at once', async () => {
  const team = await addTeam();
  await addCapsule(team, 'running');
  const written = await Promise.all([0, 1, 5000, 9999].map((ms) => sampleTeams(db, new Date(NOW.getTime() + ms))));
  expect(written.reduce((a, b) => a + b)).toBe(1);
  expect(await sampleTeams(db, new Date(NOW.getTime() + SAMPLE_PERIOD_MS))).toBe(1);
  const rows = await db.select().from(teamSamples);
  expect(rows.map(({ sampledAt }) => sampledAt.getTime() - NOW.getTime())).toEqual([0, SAMPLE_PERIOD_MS]);
});

it.each([
  ['5m', 3, 300],
  ['1h', 30, 3600],
  ['6h', 180, 6 * 3600],
  ['24h', 720, 24 * 3600],
  ['30d', 21_600, 30 * 86_400],
] as const)('range %s has buckets of %d s with the highest of each', async (range, bucketS, spanS) => {
  const team = await addTeam();
  const start = new Date(Math.floor(ago(bucketS * 2).getTime() / 1000 / bucketS) * bucketS * 1000);
  const at = (ms: number) => new Date(start.getTime() + ms);
  await putSample(team, at(0), 3);
  await putSample(team, at(bucketS * 1000 - 1), 7);
  await putSample(team, at(bucketS * 1000), 1);
  await putSample(team, ago(spanS), 90);
  await putSample(team, new Date(NOW.getTime() + 1), 91);
  const { series, peaks } = await readTeamStats(db, team, range, NOW);
  expect(series.labels).toEqual([start.toISOString(), at(bucketS * 1000).toISOString()]);
  expect(series.running).toEqual([7, 1]);
  expect(series.vcpus).toEqual([14, 2]);
  // Peaks are of 30 days whatever the range.
  expect(peaks.running_count).toBe(range === '30d' ? 7 : 90);
});

it('counts what is now into the peaks before it is sampled, and no other team', async () => {
  const [team, other] = [await addTeam(), await addTeam()];
  await addCapsule(team, 'running');
  await putSample(other, ago(10), 50);
  const { peaks, series } = await readTeamStats(db, team, '1h', NOW);
  expect(peaks).toEqual({ running_count: 1, vcpus_reserved: 2, memory_mb_reserved: 513 });
  expect(series.running).toEqual([]);
});

it('samples at multiples of the period by the one clock, until its signal', async () => {
  const team = await addTeam();
  await addCapsule(team, 'running');
  let offsetMs = -30;
  const clock = async () => {
    offsetMs += 5;
    return new Date(NOW.getTime() + offsetMs);
  };
  const stop = new AbortController();
  const log = pino({ level: 'silent' });
  const running = [1, 2].map(() => sampleTeamsRegularly({ db, signal: stop.signal, log, clock }));
  await until('two samples', async () => (await db.select().from(teamSamples)).length === 2);
  stop.abort();
  await Promise.all(running);
  const times = (await db.select().from(teamSamples)).map(({ sampledAt }) => sampledAt.getTime()).sort();
  expect(times).toEqual([NOW.getTime() - SAMPLE_PERIOD_MS, NOW.getTime()]);
});
