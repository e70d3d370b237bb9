import { newId } from '@wrenn/protocol/ids';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
let client: Client;
const ids: string[] = [];
const OTHER_TEAM = newId('team');

/** Several of the same microsecond, and several of the same millisecond. */
const ROWS = [
  { at: '2026-01-01T00:00:00.000001Z', status: 'running', labels: { env: 'prod', tier: 'a' }, template: 'minimal' },
  { at: '2026-01-01T00:00:00.000001Z', status: 'paused', labels: { env: 'dev' }, template: 'python' },
  { at: '2026-01-01T00:00:00.000002Z', status: 'running', labels: { env: 'prod' }, template: 'python' },
  { at: '2026-01-01T00:00:00.000002Z', status: 'stopped', labels: { env: 'prod' }, template: 'minimal' },
  { at: '2026-01-01T00:00:00.000999Z', status: 'running', labels: {}, template: 'minimal' },
  { at: '2026-01-02T00:00:00.000000Z', status: 'error', labels: { tier: 'a=b' }, template: 'minimal' },
  { at: '2026-01-03T00:00:00.000000Z', status: 'running', labels: { tier: 'b' }, template: 'minimal' },
] as const;

beforeAll(async () => {
  platform = await TestPlatform.start();
  client = new Client(platform.databaseUrl);
  await client.connect();
  await client.query(`INSERT INTO teams (id, name, slug) VALUES ($1, 'other', 'other')`, [OTHER_TEAM]);
  for (const { at, status, labels, template } of ROWS) ids.push(await insert(at, status, labels, template));
  await insert('2026-01-01T00:00:00Z', 'running', { env: 'prod' }, 'minimal', OTHER_TEAM);
});
afterAll(async () => {
  await client.end();
  await platform[Symbol.asyncDispose]();
});

async function insert(at: string, status: string, labels: object, template: string, team?: string): Promise<string> {
  const id = newId('cl');
  await client.query(
    `INSERT INTO capsules (id, team_id, host_id, template, status, vcpus, memory_mb, disk_request_mb, timeout_sec, envs,
       labels, versions, access_token, created_at)
     SELECT $1, coalesce($2, (SELECT team_id FROM api_keys LIMIT 1)), hosts.id, $3, $4, 1, 512, 0, 0, '{}', $5, '{}', 'secret', $6
     FROM hosts`,
    [id, team, template, status, labels, at],
  );
  return id;
}

async function list(query: string): Promise<{ found: number[]; headers: Headers; status: number }> {
  const answer = await platform.fetch(`/v1/capsules?${query}`);
  const body = (await answer.json()) as { id: string }[];
  const found = answer.ok ? body.map(({ id }) => ids.indexOf(id)) : [];
  return { found, headers: answer.headers, status: answer.status };
}

/** Of several of one microsecond the greater id comes first. */
const newestFirst = (...rows: number[]) => {
  const key = (row: number) => `${ROWS[row]?.at} ${ids[row]}`;
  return rows.toSorted((a, b) => (key(a) < key(b) ? 1 : -1));
};

describe('the list of capsules', () => {
  it.each([
    ['', [0, 1, 2, 4, 6]],
    ['status=all', [0, 1, 2, 3, 4, 5, 6]],
    ['status=paused,error,paused', [1, 5]],
    ['label=env', [0, 1, 2]],
    ['label=env=prod', [0, 2]],
    ['label=env=prod&label=tier=a', [0]],
    ['label=tier=a=b&status=all', [5]],
    ["label=env='; DROP TABLE capsules", []],
    ['template=python', [1, 2]],
    ['template=python&status=running&label=env=prod', [2]],
    ['template=nowhere', []],
    ['created_after=2026-01-02T00:00:00Z&status=all', [5, 6]],
    ['created_before=2026-01-01T01:00:00%2B01:00&status=all', []],
    ['created_after=2026-01-01T00:00:00.000002Z&created_before=2026-01-02T00:00:00Z', [2, 4]],
    ['host=host-none', []],
  ])('for "%s" holds what it should, newest first', async (query, expected) => {
    expect((await list(query)).found).toEqual(newestFirst(...expected));
  });

  it('is of one host', async () => {
    const { rows } = await client.query('SELECT id FROM hosts');
    expect((await list(`host=${rows[0].id}`)).found).toHaveLength(5);
  });

  it('holds every capsule once over its pages, whatever their size', async () => {
    for (const limit of [1, 2, 3, 7]) {
      const seen: number[] = [];
      let next: string | undefined = `/v1/capsules?status=all&limit=${limit}`;
      while (next !== undefined) {
        const answer: Response = await platform.fetch(next);
        const page = (await answer.json()) as { id: string }[];
        expect(page.length).toBeLessThanOrEqual(limit);
        seen.push(...page.map(({ id }) => ids.indexOf(id)));
        next = /^<([^>]+)>; rel="next"$/.exec(answer.headers.get('link') ?? '')?.[1];
        expect(next === undefined).toBe(answer.headers.get('x-next-cursor') === null);
      }
      expect(seen).toEqual(newestFirst(0, 1, 2, 3, 4, 5, 6));
    }
  });

  it('goes on where it was although the capsule there has changed its state', async () => {
    const first = await list('limit=2');
    await client.query(`UPDATE capsules SET status = 'stopped' WHERE id = $1`, [ids[first.found[1] ?? 0]]);
    const rest = await list(`limit=100&cursor=${first.headers.get('x-next-cursor')}`);
    await client.query(`UPDATE capsules SET status = 'running' WHERE id = $1`, [ids[first.found[1] ?? 0]]);
    expect([...first.found, ...rest.found]).toEqual(newestFirst(0, 1, 2, 4, 6));
  });

  it.each([
    'limit=0',
    'limit=1001',
    'limit=many',
    'status=happy',
    'created_after=yesterday',
    'created_after=0000-01-01T00:00:00Z',
    'cursor=nonsense',
    `cursor=${Buffer.from('["2026-02-31T00:00:00.000000Z","cl-1"]').toString('base64url')}`,
    `cursor=${Buffer.from('["x","cl-1"]').toString('base64url')}`,
    `cursor=${Buffer.from('{"at":1}').toString('base64url')}`,
    'template=%00',
    'label=',
  ])('refuses %s', async (query) => {
    expect((await list(query)).status).toBe(400);
  });

  it('shows neither tokens nor consoles', async () => {
    const text = await (await platform.fetch('/v1/capsules')).text();
    expect(text).not.toMatch(/secret|console/);
  });
});
