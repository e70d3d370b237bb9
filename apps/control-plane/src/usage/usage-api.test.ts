import { adminUsageSchema, usageSchema } from '@wrenn/protocol/rest/usage';
import { sql } from 'drizzle-orm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

const GIB = 2 ** 30;
const HOUR_S = 3600;

let platform: TestPlatform;
let people: TestPeople;
let teamId: string;
let headers: { 'x-api-key': string };

beforeAll(async () => {
  platform = await TestPlatform.start({
    WRENN_PRICES: '{"currency":"EUR","vcpu_hour":0.04,"memory_gib_hour":0.005,"egress_gib":0.02}',
  });
  people = await TestPeople.of(platform);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});
beforeEach(async () => {
  teamId = await people.addTeam();
  headers = { 'x-api-key': (await people.addKey(teamId)).key };
});

interface Interval {
  readonly capsule: string;
  readonly state?: 'running' | 'asleep';
  readonly from: string;
  readonly to: string;
  readonly labels?: Record<string, string>;
}

/** Puts into the ledger what a capsule with 2 vCPUs and 1023 MiB of memory was. */
async function add({ capsule, state = 'running', from, to, labels = {} }: Interval, team = teamId): Promise<void> {
  await people.db.execute(sql`
    INSERT INTO usage_intervals (capsule_id, team_id, labels, state, vcpus, memory_mb, disk_mb, started_at, ended_at)
    VALUES (${capsule}, ${team}, ${JSON.stringify(labels)}, ${state}, 2, 1023, 1024, ${from}, ${to})`);
}

async function send(capsule: string, day: string, bytes: number): Promise<void> {
  await people.db.execute(
    sql`INSERT INTO capsule_egress (capsule_id, team_id, day, bytes) VALUES (${capsule}, ${teamId}, ${day}, ${bytes})`,
  );
}

const capsuleIds = () => ['a', 'b', 'c'].map((name) => `cl-${name}-${teamId}`) as [string, string, string];
const MARCH = 'from=2025-03-01&to=2025-03-03';
const usage = async (query = MARCH) => {
  const { status, body } = await platform.call(`/v1/capsules/usage?${query}`, { headers });
  expect(status, JSON.stringify(body)).toBe(200);
  return usageSchema.parse(body);
};

/** A day of three capsules: one runs for two hours over midnight, one sleeps for one hour, one sends. */
async function addThree(): Promise<[string, string, string]> {
  const [runs, sleeps, sends] = capsuleIds();
  await add({ capsule: runs, from: '2025-03-01T23:00Z', to: '2025-03-02T01:00Z', labels: { env: 'prod' } });
  await add({ capsule: sleeps, state: 'asleep', from: '2025-03-02T10:00Z', to: '2025-03-02T11:00Z' });
  await add({ capsule: sends, from: '2025-03-02T12:00Z', to: '2025-03-02T12:30Z', labels: { env: '=1+1,"x"' } });
  await send(sends, '2025-03-02', 3 * GIB);
  return [runs, sleeps, sends];
}

describe('usage', () => {
  it('is told for each day of the range, with what it costs', async () => {
    await addThree();
    const { from, to, points, total } = await usage();
    expect([from, to, points.map(({ date }) => date)]).toEqual([
      ...['2025-03-01', '2025-03-03'],
      ['2025-03-01', '2025-03-02', '2025-03-03'],
    ]);
    const [first, second, third] = points;
    expect(first).toMatchObject({
      ...{ vcpu_seconds: 2 * HOUR_S, memory_mb_seconds: 1023 * HOUR_S, disk_mb_seconds: 1024 * HOUR_S },
      ...{ cpu_minutes: 120, ram_mb_minutes: 1023 * 60, egress_bytes: 0 },
    });
    expect(first?.cost).toBeCloseTo(0.08 + (1023 / 1024) * 0.005, 6);
    // Half of 1023 is 511.5, and 512 is what a capsule that sleeps holds.
    expect(second).toMatchObject({
      ...{ vcpu_seconds: 3 * HOUR_S, memory_mb_seconds: (1023 + 512 + 1023 / 2) * HOUR_S, egress_bytes: 3 * GIB },
    });
    expect(third).toMatchObject({ vcpu_seconds: 0, memory_mb_seconds: 0, egress_bytes: 0, cost: 0 });
    expect(total).toMatchObject({ vcpu_seconds: 5 * HOUR_S, egress_bytes: 3 * GIB, currency: 'EUR' });
    expect(total.cost).toBeCloseTo(
      points.reduce((sum, { cost }) => sum + (cost ?? 0), 0),
      5,
    );
  });

  it('is told for each capsule and label, which sum up to the same', async () => {
    const [runs, sleeps, sends] = await addThree();
    const byDay = await usage();
    const byCapsule = await usage(`${MARCH}&group_by=capsule`);
    const byLabel = await usage(`${MARCH}&group_by=label&label=env`);
    expect(byCapsule.total).toEqual(byDay.total);
    expect(byLabel.total).toEqual(byDay.total);
    const of = (id: string) => byCapsule.points.find(({ capsule_id }) => capsule_id === id);
    expect([of(runs), of(sleeps), of(sends)]).toMatchObject([
      { vcpu_seconds: 4 * HOUR_S, egress_bytes: 0 },
      { vcpu_seconds: 0, memory_mb_seconds: 512 * HOUR_S },
      { vcpu_seconds: HOUR_S, egress_bytes: 3 * GIB },
    ]);
    const labelled = new Map(byLabel.points.map(({ label, ...figures }) => [label, figures]));
    expect([...labelled.keys()].toSorted()).toEqual([null, 'prod', '=1+1,"x"'].toSorted());
    expect(labelled.get('=1+1,"x"')).toMatchObject({ vcpu_seconds: HOUR_S, egress_bytes: 3 * GIB });
    expect(labelled.get(null)).toMatchObject({ memory_mb_seconds: 512 * HOUR_S, egress_bytes: 0 });
  });

  it('gives what was sent to the labels that the capsule had at the end of that day', async () => {
    const [capsule] = capsuleIds();
    await add({ capsule, from: '2025-03-01T10:00Z', to: '2025-03-01T20:00Z', labels: { env: 'first' } });
    await add({ capsule, from: '2025-03-01T20:00Z', to: '2025-03-02T20:00Z', labels: { env: 'second' } });
    await send(capsule, '2025-03-01', 10);
    await send(capsule, '2025-03-03', 1);
    const { points } = await usage(`${MARCH}&group_by=label&label=env`);
    expect(points.map(({ label, egress_bytes }) => [label, egress_bytes])).toEqual([
      ['first', 0],
      ['second', 11],
    ]);
  });

  it('counts a capsule from its start on, to the end of what it did', async () => {
    const { body } = await platform.call('/v1/capsules', { json: { vcpus: 1, memory_mb: 512 }, headers });
    await platform.call(`/v1/capsules/${body.id}/pause`, { method: 'POST', headers });
    const { points } = await usage('group_by=capsule');
    expect(points).toMatchObject([{ capsule_id: body.id }]);
    const { rows } = await people.db.execute(
      sql`SELECT state FROM usage_intervals WHERE capsule_id = ${body.id} ORDER BY started_at`,
    );
    expect(rows).toEqual([{ state: 'running' }, { state: 'asleep' }]);
  });

  it('is of the last 30 days where nothing else is asked for', async () => {
    const { points, from, to } = await usage('');
    const today = new Date().toISOString().slice(0, 10);
    expect(points).toHaveLength(30);
    expect([points[0]?.date, points.at(-1)?.date]).toEqual([from, to]);
    expect(Math.abs(Date.parse(to) - Date.parse(today))).toBeLessThanOrEqual(86_400_000);
    expect((await usage('to=2025-03-31')).from).toBe('2025-03-02');
  });

  it.each([
    ['from=2025-03-02&to=2025-03-01', 'from: 2025-03-02 is after 2025-03-01'],
    ['from=2025-01-01&to=2025-04-03', '93 days are more than 92'],
    ['from=yesterday', 'from'],
    ['from=2025-02-30', 'from'],
    ['to=2025-3-1', 'to'],
    ['group_by=host', 'group_by'],
    ['group_by=label', 'label'],
    ['group_by=label&label=', 'label'],
    ['format=xml', 'format'],
  ])('is refused for %s', async (query, problem) => {
    const { status, body } = await platform.call(`/v1/capsules/usage?${query}`, { headers });
    expect([status, body.error.reason]).toEqual([400, 'invalid_request']);
    expect(body.error.message).toContain(problem);
  });

  it('is told for 92 days', async () => {
    expect((await usage('from=2025-01-01&to=2025-04-02')).points).toHaveLength(92);
  });
});

/** Cells of RFC 4180. */
function parseCsv(text: string): string[][] {
  expect(text.endsWith('\r\n')).toBe(true);
  return text
    .slice(0, -2)
    .split('\r\n')
    .map((line) =>
      [...`,${line}`.matchAll(/,(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(([, quoted, plain]) =>
        quoted === undefined ? (plain ?? '') : quoted.replaceAll('""', '"'),
      ),
    );
}

describe('usage as CSV', () => {
  it.each(['group_by=day', 'group_by=capsule', 'group_by=label&label=env'])(
    'has the figures of the JSON (%s)',
    async (group) => {
      await addThree();
      const { points, total } = await usage(`${MARCH}&${group}`);
      for (const path of [`usage/export?${MARCH}&${group}`, `usage?${MARCH}&${group}&format=csv`]) {
        const answer = await platform.fetch(`/v1/capsules/${path}`, { headers });
        expect(answer.headers.get('content-type')).toBe('text/csv; charset=utf-8');
        expect(answer.headers.get('content-disposition')).toBe(
          'attachment; filename="usage-2025-03-01-2025-03-03.csv"',
        );
        const [names = [], ...lines] = parseCsv(await answer.text());
        expect(names.at(-1)).toBe('currency');
        const asText = points.map((point) => {
          const known: Record<string, unknown> = { ...point, currency: total.currency };
          // A label that a spreadsheet would work out is told apart by a mark before it.
          const shown = (value: unknown) => (value === '=1+1,"x"' ? `'${value}` : String(value ?? ''));
          return names.map((name) => shown(known[name]));
        });
        expect(lines).toEqual(asText);
        expect(lines.length).toBeGreaterThan(0);
      }
    },
  );

  it.each(['=1+1', '+1', '-1', '@SUM(A1)', '\t=1', '\r=1'])('makes no formula of the label %j', async (value) => {
    const [capsule] = capsuleIds();
    await add({ capsule, from: '2025-03-01T10:00Z', to: '2025-03-01T11:00Z', labels: { env: value } });
    const answer = await platform.fetch(`/v1/capsules/usage/export?${MARCH}&group_by=label&label=env`, { headers });
    const second = (await answer.text()).slice('label,'.length).split('\r\n').slice(1).join('\r\n');
    expect(second).toMatch(/^"?'/);
  });

  it('answers a wrong request with an error in JSON', async () => {
    const answer = await platform.call('/v1/capsules/usage?format=csv&from=2025-03-02&to=2025-03-01', { headers });
    expect(answer).toMatchObject({ status: 400, body: { error: { reason: 'invalid_request' } } });
  });
});

describe('who sees usage', () => {
  const keyWith = async (scopes: ('metrics:read' | 'capsules:read')[]) => ({
    'x-api-key': (await people.addKey(teamId, { scopes })).key,
  });
  const status = async (path: string, who: { 'x-api-key': string }) =>
    (await platform.fetch(`/v1${path}`, { headers: who })).status;

  it('is every member and every key with metrics:read, for their own team', async () => {
    const member = { 'x-api-key': (await people.logInNew(teamId, 'member')).token };
    const reader = await keyWith(['metrics:read']);
    const other = await keyWith(['capsules:read']);
    const stranger = { 'x-api-key': (await people.logInNew(await people.addTeam(), 'owner')).token };
    for (const path of ['/capsules/usage', '/capsules/usage/export', `/teams/${teamId}/usage`]) {
      expect([await status(path, member), await status(path, reader), await status(path, other)]).toEqual([
        200, 200, 403,
      ]);
    }
    expect(await status(`/teams/${teamId}/usage`, stranger)).toBe(404);
    expect(await status(`/teams/${teamId}/usage`, { 'x-api-key': platform.apiKey })).toBe(404);
    await addThree();
    const theirs = await platform.call(`/v1/capsules/usage?${MARCH}`, { headers: stranger });
    expect(theirs.body.total.vcpu_seconds).toBe(0);
    const own = await platform.call(`/v1/teams/${teamId}/usage?${MARCH}`, { headers: member });
    expect(own.body).toEqual(await usage());
  });

  it('is an administrator, for every team', async () => {
    await addThree();
    const other = await people.addTeam();
    await add({ capsule: `cl-${other}`, from: '2025-03-01T10:00Z', to: '2025-03-01T11:00Z' }, other);
    const admin = { 'x-api-key': await people.logIn(await people.addUser({ isAdmin: true }), undefined) };
    const { body } = await platform.call(`/v1/admin/usage?${MARCH}`, { headers: admin });
    const { teams, total } = adminUsageSchema.parse(body);
    const own = teams.find((team) => team.team_id === teamId);
    const { currency: _, ...figures } = (await usage()).total;
    expect(own).toEqual({ team_id: teamId, team_name: 'a team', ...figures });
    expect(teams.find((team) => team.team_id === other)).toMatchObject({ vcpu_seconds: 2 * HOUR_S });
    expect(total.vcpu_seconds).toBe(teams.reduce((sum, { vcpu_seconds }) => sum + vcpu_seconds, 0));
    const csv = await platform.fetch(`/v1/admin/usage?${MARCH}&format=csv`, { headers: admin });
    const [names = [], ...lines] = parseCsv(await csv.text());
    expect(lines).toEqual(
      teams.map((team) => names.map((name) => String({ ...team, currency: 'EUR' }[name as keyof typeof team] ?? ''))),
    );
    expect(await status(`/admin/usage?${MARCH}`, headers)).toBe(403);
    expect(await status(`/admin/usage?${MARCH}`, { 'x-api-key': (await people.logInNew(teamId, 'owner')).token })).toBe(
      403,
    );
  });
});
