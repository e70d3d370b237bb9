import { newId } from '@wrenn/protocol/ids';
import { drizzle } from 'drizzle-orm/node-postgres';
import { Client } from 'pg';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Database, Db } from '../database/database.ts';
import * as schema from '../database/schema.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { watchBudgets } from './budget-watch.ts';
import { readBudget } from './budgets.ts';
import { checkBudget } from './check-budget.ts';
import { pricesSchema } from './prices.ts';

const never = new AbortController().signal;
const GIB = 2 ** 30;
const PRICES = pricesSchema.parse({ currency: 'EUR', egress_gib: 1 });
const log = pino({ level: 'silent' });

let database: Database;
let client: Client;
/** Over one connection, which has a clock of its own. */
let db: Db;
let teamId: string;
let paused: string[];

beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database[Symbol.asyncDispose]());
beforeEach(async () => {
  client = new Client(database.connection);
  await client.connect();
  db = drizzle(client, { schema });
  await client.query('TRUNCATE hosts, teams, audit_log, events, capsule_egress, usage_intervals CASCADE');
  await client.query("INSERT INTO hosts (id, address, status) VALUES ('host-1', 'https://host.example', 'online')");
  teamId = await addTeam();
  paused = [];
  await setClock('2025-03-10T12:00:00Z');
});
afterEach(() => client.end());

async function addTeam(): Promise<string> {
  const id = newId('team');
  await client.query('INSERT INTO teams (id, name, slug) VALUES ($1, $1, $1)', [id]);
  await client.query(
    `INSERT INTO channels (id, team_id, name, provider, config, events)
     VALUES ($1, $2, 'all', 'webhook', '{}', '{budget.warning,budget.exceeded}')`,
    [newId('ch'), id],
  );
  return id;
}

async function setClock(at: string): Promise<void> {
  await client.query("SELECT set_config('wrenn.now', $1, false)", [at]);
}

async function setBudget(monthly: number, onExceeded: 'warn' | 'sleep' = 'sleep', team = teamId): Promise<void> {
  await client.query(
    `INSERT INTO budgets (team_id, monthly, warn_at_pct, on_exceeded) VALUES ($1, $2, 80, $3)
     ON CONFLICT (team_id) DO UPDATE SET monthly = excluded.monthly, on_exceeded = excluded.on_exceeded`,
    [team, monthly, onExceeded],
  );
}

/** Each GiB that is sent costs 1. */
async function spend(amount: number, day: string, team = teamId): Promise<void> {
  await client.query('INSERT INTO capsule_egress (capsule_id, team_id, day, bytes) VALUES ($1, $2, $3, $4)', [
    ...[newId('cl'), team, day],
    Math.round(amount * GIB),
  ]);
}

async function addCapsule(status: string, team = teamId): Promise<string> {
  const id = newId('cl');
  await client.query(
    `INSERT INTO capsules (id, team_id, host_id, template, status, vcpus, memory_mb, disk_request_mb,
       timeout_sec, envs, labels, versions, access_token)
     VALUES ($1, $2, 'host-1', 'minimal', $3, 1, 512, 0, 0, '{}', '{}', '{}', '')`,
    [id, team, status],
  );
  return id;
}

const pause = async ({ id }: { id: string }): Promise<void> => {
  paused.push(id);
};
const watch = (how = pause) => watchBudgets({ db, prices: PRICES, pause: how, log }, undefined, never);
const state = async () => (await readBudget(db, PRICES, teamId)).state;
const told = async () => {
  const { rows } = await client.query<{ type: string }>('SELECT type FROM events ORDER BY created_at, type DESC');
  const { rows: audits } = await client.query<{ action: string; status: string }>(
    "SELECT action FROM audit_log WHERE resource_type = 'budget' AND scope = 'admin' ORDER BY created_at, id",
  );
  const types = rows.map(({ type }) => type);
  expect(audits.map(({ action }) => `budget.${action}`).toSorted()).toEqual(types.toSorted());
  return types;
};
const mayStart = () =>
  checkBudget(db, teamId).then(
    () => true,
    (error: Error) => error.message,
  );
const REFUSED = 'The budget of the team for this month is used up.';

describe('a budget', () => {
  it('is told of once a month when it is nearly spent, and once when it is', async () => {
    await setBudget(100);
    await spend(79.99, '2025-03-02');
    await watch();
    expect([await state(), await told()]).toEqual(['ok', []]);
    await spend(0.01, '2025-03-10');
    for (let n = 0; n < 3; n++) await watch();
    expect([await state(), await told()]).toEqual(['warned', ['budget.warning']]);
    await spend(19.99, '2025-03-10');
    await watch();
    expect([await state(), await mayStart()]).toEqual(['warned', true]);
    await spend(0.01, '2025-03-10');
    for (let n = 0; n < 3; n++) await watch();
    expect([await state(), await told()]).toEqual(['exceeded', ['budget.warning', 'budget.exceeded']]);
    expect(await mayStart()).toBe(REFUSED);
  });

  it('begins anew with each month, without anybody looking', async () => {
    await setBudget(100);
    // Of other months, which do not count.
    await spend(500, '2025-02-28');
    await watch();
    expect(await mayStart()).toBe(true);
    await spend(100, '2025-03-31');
    await setClock('2025-03-31T23:59:59.999Z');
    await watch();
    expect(await mayStart()).toBe(REFUSED);
    await setClock('2025-04-01T00:00:00Z');
    expect([await state(), await mayStart()]).toEqual(['ok', true]);
    await watch();
    await spend(100, '2025-04-01');
    await watch();
    expect(await told()).toHaveLength(4);
    expect(await mayStart()).toBe(REFUSED);
  });

  it('has what runs paused each time anew, of that team alone, and nothing of what sleeps', async () => {
    const ids = [await addCapsule('running'), await addCapsule('running')];
    for (const status of ['paused', 'hibernated', 'starting', 'stopped', 'error']) await addCapsule(status);
    const other = await addTeam();
    await addCapsule('running', other);
    await setBudget(100, 'sleep', other);
    await setBudget(100);
    await spend(100, '2025-03-10');
    await watch();
    expect(paused).toEqual(ids.toSorted());
    await watch();
    expect(paused).toHaveLength(4);
  });

  it('goes on to the others where one cannot be paused, and tries it again', async () => {
    const [first = '', second = ''] = [await addCapsule('running'), await addCapsule('running')].toSorted();
    await setBudget(1);
    await spend(1, '2025-03-10');
    const failing = async (capsule: { id: string }) => {
      if (capsule.id === first) throw new Error('its host is silent');
      await pause(capsule);
    };
    await expect(watch(failing)).rejects.toThrow('1 failures');
    expect(paused).toEqual([second]);
    await watch();
    expect(paused).toContain(first);
  });

  it('that only warns pauses nothing and lets everything start', async () => {
    await addCapsule('running');
    await setBudget(1, 'warn');
    await spend(2, '2025-03-10');
    await watch();
    expect(await told()).toEqual(['budget.warning', 'budget.exceeded']);
    expect([paused, await mayStart()]).toEqual([[], true]);
  });

  it('that is raised lets start what it refused, and tells again when it is spent too', async () => {
    await setBudget(100);
    await spend(100, '2025-03-10');
    await watch();
    await setBudget(1000);
    await watch();
    expect([await state(), await mayStart()]).toEqual(['ok', true]);
    await spend(900, '2025-03-10');
    await watch();
    expect(await told()).toHaveLength(4);
  });

  it('counts what capsules hold until now', async () => {
    const prices = pricesSchema.parse({ currency: 'EUR', vcpu_hour: 0.5 });
    await setBudget(10);
    await addCapsule('running');
    await setClock('2025-03-11T08:00:00Z');
    expect(await readBudget(db, prices, teamId)).toMatchObject({ spent: 10, state: 'exceeded', month: '2025-03-01' });
  });

  it('is told of once when two control planes look at once', async () => {
    await setBudget(1);
    // On days that are these connections' month too.
    const { rows } = await database.pool.query<{ today: string }>("SELECT to_char(now(), 'YYYY-MM-DD') AS today");
    await spend(1, rows[0]?.today ?? '');
    const look = () => watchBudgets({ db: database.db, prices: PRICES, pause, log }, undefined, never);
    await Promise.all(Array.from({ length: 6 }, look));
    expect(await told()).toEqual(['budget.warning', 'budget.exceeded']);
  });
});
