import { newId } from '@wrenn/protocol/ids';
import { CAPSULE_STATUSES, type CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import { drizzle } from 'drizzle-orm/node-postgres';
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Database, Db } from '../database/database.ts';
import * as schema from '../database/schema.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { rollUpUsage } from './roll-up.ts';
import { selectUsage, sumUp, type UsageSums } from './usage-store.ts';

const DAY_US = 86_400_000_000n;
const never = new AbortController().signal;
let database: Database;
let stack: AsyncDisposableStack;
let client: Client;
/** Over that one connection, which has a clock of its own. */
let db: Db;

beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database[Symbol.asyncDispose]());
beforeEach(async () => {
  stack = new AsyncDisposableStack();
  client = await connect();
  db = drizzle(client, { schema });
  await client.query('TRUNCATE hosts, teams, usage_intervals, daily_usage, rolled_up_days CASCADE');
  await client.query("INSERT INTO hosts (id, address, status) VALUES ('host-1', 'https://host.example', 'online')");
});
afterEach(() => stack.disposeAsync());

async function connect(): Promise<Client> {
  const client = stack.adopt(new Client(database.connection), (each) => each.end());
  await client.connect();
  return client;
}

const instant = (text: string) => BigInt(Date.parse(text)) * 1000n;
const dayOf = (us: bigint) => new Date(Number(us / 1000n)).toISOString().slice(0, 10);

async function setClock(us: bigint): Promise<void> {
  const micros = String(us % 1_000_000n).padStart(6, '0');
  const seconds = new Date(Number(us / 1_000_000n) * 1000).toISOString().slice(0, 19);
  await client.query("SELECT set_config('wrenn.now', $1, false)", [`${seconds}.${micros}Z`]);
}

async function addTeam(): Promise<string> {
  const id = newId('team');
  await client.query('INSERT INTO teams (id, name, slug) VALUES ($1, $1, $1)', [id]);
  return id;
}

interface Facts {
  readonly teamId: string;
  readonly status: CapsuleStatus;
  readonly vcpus: number;
  readonly memoryMb: number;
  readonly diskMb: number | null;
  readonly labels: Readonly<Record<string, string>>;
}

const PLAIN = { status: 'pending', vcpus: 2, memoryMb: 513, diskMb: null, labels: {} } as const;

async function put(id: string, facts: Facts): Promise<void> {
  const { teamId, status, vcpus, memoryMb, diskMb, labels } = facts;
  await client.query(
    `INSERT INTO capsules (id, team_id, host_id, template, status, vcpus, memory_mb, disk_request_mb, disk_mb,
       timeout_sec, envs, labels, versions, access_token)
     VALUES ($1, $2, 'host-1', 'minimal', $3, $4, $5, 0, $6, 0, '{}', $7, '{}', '')
     ON CONFLICT (id) DO UPDATE SET team_id = excluded.team_id, status = excluded.status, vcpus = excluded.vcpus,
       memory_mb = excluded.memory_mb, disk_mb = excluded.disk_mb, labels = excluded.labels`,
    [id, teamId, status, vcpus, memoryMb, diskMb, JSON.stringify(labels)],
  );
}

/** What is spent, by the rules that docs/usage.md tells, in another way than the ledger counts it. */
const RUNNING = new Set<CapsuleStatus>(['running', 'pausing', 'forking']);
const ASLEEP = new Set<CapsuleStatus>(['paused', 'hibernating', 'hibernated', 'resuming']);

class Recount {
  readonly #changes = new Map<string, { readonly at: bigint; readonly facts: Facts }[]>();

  note(id: string, at: bigint, facts: Facts): void {
    const list = this.#changes.get(id) ?? [];
    list.push({ at, facts });
    this.#changes.set(id, list);
  }

  /** @param keyOf undefined: not counted */
  sums(
    until: bigint,
    keyOf: (spent: { day: string; capsule: string; facts: Facts }) => string | undefined,
  ): Map<string, UsageSums> {
    const sums = new Map<string, UsageSums>();
    for (const [capsule, changes] of this.#changes) {
      for (const [index, { at, facts }] of changes.entries()) {
        const end = changes[index + 1]?.at ?? until;
        for (let from = at; from < end; ) {
          const midnight = (from / DAY_US + 1n) * DAY_US;
          const to = midnight < end ? midnight : end;
          const key = keyOf({ day: dayOf(from), capsule, facts });
          const spent = spentIn(facts, to - from);
          const before = key === undefined ? undefined : sums.get(key);
          if (key !== undefined && spent) sums.set(key, before ? sumUp([before, spent]) : spent);
          from = to;
        }
      }
    }
    return sums;
  }
}

function spentIn({ status, vcpus, memoryMb, diskMb }: Facts, us: bigint): UsageSums | undefined {
  const diskMbUs = us * BigInt(diskMb ?? 1024);
  const egressBytes = 0n;
  if (RUNNING.has(status)) {
    return { vcpuUs: us * BigInt(vcpus), memoryMbUs: us * BigInt(memoryMb), diskMbUs, egressBytes };
  }
  if (!ASLEEP.has(status)) return undefined;
  return { vcpuUs: 0n, memoryMbUs: us * BigInt(Math.ceil(memoryMb / 2)), diskMbUs, egressBytes };
}

async function read(teamId: string | undefined, group: Parameters<typeof selectUsage>[3]) {
  const groups = await selectUsage(db, teamId, { from: '2025-03-01', to: '2025-04-10' }, group);
  return new Map(groups.map(({ key, ...sums }) => [key ?? '-', sums]));
}

/** Numbers that look random and are the same in every run. */
function numbersFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

describe('the ledger', () => {
  it.each([7, 1_000_003])(
    'is equal to an independent recount of a month of random lives (seed %i)',
    async (seed) => {
      const random = numbersFrom(seed);
      const teams = [await addTeam(), await addTeam(), await addTeam()];
      const recount = new Recount();
      const capsules = new Map<string, Facts>();
      const pick = <T>(from: readonly T[]): T => from[random(from.length)] as T;
      const change = (before: Facts): Facts => {
        switch (random(12)) {
          case 0:
            return { ...before, vcpus: 1 + random(8), memoryMb: 1 + random(4000) };
          case 1:
            return { ...before, diskMb: 1 + random(9000) };
          case 2:
            return { ...before, labels: random(4) === 0 ? {} : { env: pick(['a', 'b', 'c']), job: String(random(3)) } };
          case 3:
            return { ...before, teamId: pick(teams) };
          default:
            return { ...before, status: pick(CAPSULE_STATUSES) };
        }
      };
      let now = instant('2025-03-01T00:00:00Z');
      let rolledUp = 0;
      for (let step = 0; step < 500; step++) {
        now += BigInt(random(10_800_000)) * 1000n + BigInt(random(1000));
        await setClock(now);
        // Several changes at once, some of them at the same microsecond, some of them of the same capsule.
        await client.query('BEGIN');
        for (let count = 1 + random(3); count > 0; count--) {
          const known = [...capsules.keys()];
          const id = known.length < 40 || random(50) === 0 ? newId('cl') : pick(known);
          const facts = change(capsules.get(id) ?? { ...PLAIN, teamId: pick(teams) });
          await put(id, facts);
          capsules.set(id, facts);
          recount.note(id, now, facts);
          if (random(2) === 0) {
            now += BigInt(random(2_000_000));
            await setClock(now);
          }
        }
        await client.query('COMMIT');
        // Days without roll-ups lie between.
        if (random(50) === 0) rolledUp += (await rollUpUsage(db, never)).length;
      }
      now += 2n * DAY_US + 12_345_678_901n;
      await setClock(now);
      expect(now).toBeGreaterThan(instant('2025-03-29T00:00:00Z'));
      expect(rolledUp).toBeGreaterThan(5);

      const check = async () => {
        for (const teamId of [...teams, undefined]) {
          const isTeam = (facts: Facts) => teamId === undefined || facts.teamId === teamId;
          const byDay = await read(teamId, { by: 'day' });
          expect(byDay).toEqual(recount.sums(now, ({ day, facts }) => (isTeam(facts) ? day : undefined)));
          const byCapsule = await read(teamId, { by: 'capsule' });
          expect(byCapsule).toEqual(recount.sums(now, ({ capsule, facts }) => (isTeam(facts) ? capsule : undefined)));
          const byLabel = await read(teamId, { by: 'label', label: 'env' });
          expect(byLabel).toEqual(
            recount.sums(now, ({ facts }) => (isTeam(facts) ? (facts.labels.env ?? '-') : undefined)),
          );
          const total = sumUp([...byDay.values()]);
          expect(sumUp([...byCapsule.values()])).toEqual(total);
          expect(sumUp([...byLabel.values()])).toEqual(total);
        }
        expect(await read(undefined, { by: 'team' })).toEqual(recount.sums(now, ({ facts }) => facts.teamId));
      };
      await check();
      const last = await rollUpUsage(db, never);
      expect(last.at(-1)).toBe(dayOf(now - DAY_US));
      expect(await rollUpUsage(db, never)).toEqual([]);
      await check();
    },
    120_000,
  );

  it('counts each side of midnight to its own day, and goes on over many', async () => {
    const teamId = await addTeam();
    const id = newId('cl');
    await setClock(instant('2025-03-10T23:59:59.000Z') + 250_000n);
    await put(id, { ...PLAIN, teamId, status: 'running' });
    await setClock(instant('2025-03-13T00:00:00.000Z') + 1n);
    const days = async () =>
      [...(await read(teamId, { by: 'day' })).entries()].map(([day, { vcpuUs }]) => [day, vcpuUs]);
    const expected = [
      ['2025-03-10', 1_500_000n],
      ['2025-03-11', 2n * DAY_US],
      ['2025-03-12', 2n * DAY_US],
      ['2025-03-13', 2n],
    ];
    expect(await days()).toEqual(expected);
    expect(await rollUpUsage(db, never)).toEqual(['2025-03-10', '2025-03-11', '2025-03-12']);
    expect(await days()).toEqual(expected);
  });

  it('rounds half of the memory of each capsule up, before it sums', async () => {
    const teamId = await addTeam();
    await setClock(instant('2025-03-10T10:00:00Z'));
    for (let n = 0; n < 3; n++) await put(newId('cl'), { ...PLAIN, teamId, status: 'paused' });
    await setClock(instant('2025-03-10T10:00:01Z'));
    const [day] = await selectUsage(db, teamId, { from: '2025-03-10', to: '2025-03-10' }, { by: 'day' });
    expect(day).toMatchObject({ vcpuUs: 0n, memoryMbUs: 3n * 257n * 1_000_000n, diskMbUs: 3n * 1024n * 1_000_000n });
  });

  it('charges nothing for a start, a silent host, a failure or an end that was asked for', async () => {
    const teamId = await addTeam();
    for (const [index, status] of (
      ['pending', 'starting', 'missing', 'error', 'stopping', 'stopped'] as const
    ).entries()) {
      const id = newId('cl');
      await setClock(instant('2025-03-10T10:00:00Z') + BigInt(index));
      await put(id, { ...PLAIN, teamId });
      await put(id, { ...PLAIN, teamId, status });
    }
    await setClock(instant('2025-03-10T11:00:00Z'));
    expect(await read(teamId, { by: 'day' })).toEqual(new Map());
  });

  it('is told of nothing that was rolled back', async () => {
    const teamId = await addTeam();
    await setClock(instant('2025-03-10T10:00:00Z'));
    await client.query('BEGIN');
    await put(newId('cl'), { ...PLAIN, teamId, status: 'running' });
    await client.query('ROLLBACK');
    await setClock(instant('2025-03-10T11:00:00Z'));
    expect(await read(teamId, { by: 'day' })).toEqual(new Map());
  });

  it('ends with the row of its capsule', async () => {
    const teamId = await addTeam();
    const id = newId('cl');
    await setClock(instant('2025-03-10T10:00:00Z'));
    await put(id, { ...PLAIN, teamId, status: 'running' });
    await setClock(instant('2025-03-10T10:00:05Z'));
    await client.query('DELETE FROM capsules WHERE id = $1', [id]);
    await setClock(instant('2025-03-10T12:00:00Z'));
    expect((await read(teamId, { by: 'capsule' })).get(id)?.vcpuUs).toBe(10_000_000n);
  });

  it('bears a clock that is set back, and never changes a day that is rolled up', async () => {
    const teamId = await addTeam();
    const id = newId('cl');
    await setClock(instant('2025-03-10T10:00:00Z'));
    await put(id, { ...PLAIN, teamId, status: 'running' });
    await setClock(instant('2025-03-11T10:00:00Z'));
    expect(await rollUpUsage(db, never)).toEqual(['2025-03-10']);
    const before = (await read(teamId, { by: 'day' })).get('2025-03-10');
    await setClock(instant('2025-03-10T09:00:00Z'));
    for (const status of ['paused', 'missing', 'running', 'stopped'] as const)
      await put(id, { ...PLAIN, teamId, status });
    await setClock(instant('2025-03-11T10:00:00Z'));
    expect(await read(teamId, { by: 'day' })).toEqual(new Map([['2025-03-10', before]]));
  });

  it('refuses two intervals of a capsule that overlap, whoever writes them', async () => {
    const insert = `INSERT INTO usage_intervals
      (capsule_id, team_id, labels, state, vcpus, memory_mb, disk_mb, started_at, ended_at)
      VALUES ('cl-1', 'team-1', '{}', 'running', 1, 1, 1, $1, $2)`;
    await client.query(insert, ['2025-03-10T10:00:00Z', '2025-03-10T11:00:00Z']);
    await client.query(insert, ['2025-03-10T11:00:00Z', '2025-03-10T12:00:00Z']);
    await expect(client.query(insert, ['2025-03-10T11:59:59Z', null])).rejects.toThrow('usage_intervals_no_overlap');
  });

  it('waits with a day for transactions that began in it', async () => {
    const teamId = await addTeam();
    await put(newId('cl'), { ...PLAIN, teamId, status: 'running' });
    const other = await connect();
    await other.query('BEGIN');
    await other.query('SELECT 1');
    await setClock(BigInt(Date.now()) * 1000n + 2n * DAY_US);
    expect(await rollUpUsage(db, never)).toEqual([]);
    await other.query('COMMIT');
    expect(await rollUpUsage(db, never)).toHaveLength(2);
  });
});
