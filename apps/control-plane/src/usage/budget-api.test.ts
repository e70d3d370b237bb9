import { newId } from '@wrenn/protocol/ids';
import { budgetSchema } from '@wrenn/protocol/rest/usage';
import { until } from '@wrenn/testing/until';
import { sql } from 'drizzle-orm';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

const GIB = 2 ** 30;

let platform: TestPlatform;
let people: TestPeople;
let teamId: string;
let key: { 'x-api-key': string };
let owner: { 'x-api-key': string };

beforeAll(async () => {
  platform = await TestPlatform.start({ WRENN_PRICES: '{"currency":"EUR","egress_gib":1}' });
  people = await TestPeople.of(platform);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});
beforeEach(async () => {
  teamId = await people.addTeam();
  key = { 'x-api-key': (await people.addKey(teamId)).key };
  owner = bearer((await people.logInNew(teamId, 'owner')).token);
});
afterEach(async () => {
  platform.host.behave();
  const { body } = await platform.call('/v1/capsules', { headers: key });
  for (const { id } of body) await platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE', headers: key });
});

const bearer = (token: string) => ({ 'x-api-key': token });
const budget = (json?: object, headers = owner) =>
  platform.call(`/v1/teams/${teamId}/budget`, { ...(json ? { method: 'PUT', json } : {}), headers });
const create = () => platform.call('/v1/capsules', { json: {}, headers: key });
const act = (id: string, verb: string, json: object = {}) =>
  platform.call(`/v1/capsules/${id}/${verb}`, { json, headers: key });
const statusOf = async (id: string) => (await platform.call(`/v1/capsules/${id}`, { headers: key })).body.status;
/** Each GiB costs 1. */
const spend = (amount: number) =>
  people.db.execute(sql`INSERT INTO capsule_egress (capsule_id, team_id, day, bytes)
    VALUES (${newId('cl')}, ${teamId}, (wrenn_now() AT TIME ZONE 'UTC')::date, ${amount * GIB})`);
const REFUSED = { status: 402, body: { error: { reason: 'budget_exceeded' } } };

describe('the budget of a team', () => {
  it('is none at first, and what is set', async () => {
    const { body } = await budget();
    const none = {
      team_id: teamId,
      monthly: null,
      warn_at_pct: 80,
      on_exceeded: 'sleep',
      state: 'ok',
      currency: 'EUR',
    };
    expect(budgetSchema.parse(body)).toMatchObject({ ...none, spent: 0, updated_at: null });
    expect(body.month).toMatch(/^\d{4}-\d{2}-01$/);
    await spend(4);
    const set = await budget({ monthly: 8, warn_at_pct: 50, on_exceeded: 'warn' });
    expect(set).toMatchObject({
      status: 200,
      body: { monthly: 8, warn_at_pct: 50, on_exceeded: 'warn', spent: 4, state: 'warned' },
    });
    expect((await budget()).body).toEqual(set.body);
    expect((await budget({ monthly: null })).body).toMatchObject({ ...none, spent: 4 });
    const log = await platform.call('/v1/audit-logs?resource_type=budget', { headers: owner });
    expect(log.body.items.map(({ action }: { action: string }) => action)).toEqual(['set', 'warning', 'set']);
  });

  it('is seen and set by owners and admins, and by nobody else', async () => {
    const as = async (role: 'admin' | 'member') => bearer((await people.logInNew(teamId, role)).token);
    expect((await budget({ monthly: 5 }, await as('admin'))).status).toBe(200);
    const member = await as('member');
    expect((await budget(undefined, member)).status).toBe(403);
    expect((await budget({ monthly: 5 }, member)).status).toBe(403);
    expect((await budget({ monthly: 5 }, key)).body.error.reason).toBe('login_required');
    const stranger = bearer((await people.logInNew(await people.addTeam(), 'owner')).token);
    expect((await budget({ monthly: 5 }, stranger)).status).toBe(404);
  });

  it.each([{ monthly: -1 }, { monthly: 5, warn_at_pct: 0 }, { monthly: 5, on_exceeded: 'destroy' }, {}])(
    'is refused as %j',
    async (wrong) => {
      expect(await budget(wrong)).toMatchObject({ status: 400, body: { error: { reason: 'invalid_request' } } });
    },
  );

  it('puts capsules to sleep and lets none start once it is spent, until it is raised', async () => {
    const [busy, asleep] = [(await create()).body.id, (await create()).body.id];
    await act(asleep, 'pause');
    await spend(10);
    // The first attempt of the host fails, and the capsule runs on.
    platform.host.before.pause = async () => {
      delete platform.host.before.pause;
      throw new Error('a fault');
    };
    expect((await budget({ monthly: 10 })).body.state).toBe('exceeded');
    await until('the pause failed', () => platform.host.before.pause === undefined);
    // Or sleeps already, where it is just time to look at budgets.
    await until('that is over', async () => ['running', 'paused'].includes(await statusOf(busy)));
    await budget({ monthly: 9 });
    await until('it sleeps', async () => (await statusOf(busy)) === 'paused');
    expect(await create()).toMatchObject(REFUSED);
    expect(await act(busy, 'resume')).toMatchObject(REFUSED);
    expect(await act(asleep, 'resume')).toMatchObject(REFUSED);
    expect((await budget({ monthly: 11 })).body.state).toBe('warned');
    for (const id of [busy, asleep]) {
      expect(await act(id, 'resume')).toMatchObject({ status: 200, body: { status: 'running' } });
    }
    expect((await create()).status).toBe(201);
  });

  it('that is spent lets nothing be forked', async () => {
    const id = (await create()).body.id;
    // Held, so that it still runs.
    platform.host.before.pause = () => Promise.reject(new Error('a fault'));
    await spend(1);
    await budget({ monthly: 1 });
    // Between two attempts to pause it.
    await until('the fork is refused', async () => (await act(id, 'fork')).status === 402);
    expect((await platform.call('/v1/capsules', { headers: key })).body).toHaveLength(1);
  });

  it('that only warns lets everything go on', async () => {
    const id = (await create()).body.id;
    await spend(2);
    expect((await budget({ monthly: 1, on_exceeded: 'warn' })).body.state).toBe('exceeded');
    expect((await create()).status).toBe(201);
    expect(await statusOf(id)).toBe('running');
  });

  it('is over with its month', async () => {
    await spend(5);
    await budget({ monthly: 5 });
    expect(await create()).toMatchObject(REFUSED);
    await moveClock(32);
    try {
      expect((await budget()).body).toMatchObject({ spent: 0, state: 'ok' });
      expect((await create()).status).toBe(201);
    } finally {
      await moveClock(undefined);
    }
    expect(await create()).toMatchObject(REFUSED);
  });

  /** Lets the ledger believe it is so many days later, from the next start on. */
  async function moveClock(days: number | undefined): Promise<void> {
    await platform.stopControlPlane();
    const at = days === undefined ? '' : new Date(Date.now() + days * 86_400_000).toISOString();
    await people.db.execute(
      sql.raw(
        `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET "wrenn.now" = %L', current_database(), '${at}'); END $$`,
      ),
    );
    await platform.startControlPlane();
  }
});

it('has no effect on a platform without prices, and says so', async () => {
  await using other = await TestPlatform.start();
  await using others = await TestPeople.of(other);
  const team = await others.addTeam();
  const headers = bearer((await others.logInNew(team, 'owner')).token);
  const set = await other.call(`/v1/teams/${team}/budget`, { method: 'PUT', json: { monthly: 0 }, headers });
  expect(set.body).toMatchObject({ monthly: 0, currency: null, spent: null, state: 'ok' });
  expect((await other.call('/v1/capsules', { json: {}, headers })).status).toBe(201);
});
