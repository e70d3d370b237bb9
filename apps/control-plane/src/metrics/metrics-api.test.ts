import { errorResponseSchema } from '@wrenn/protocol/rest/error';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pools } from '../database/usage-schema.ts';
import { TestHosts } from '../testing/test-hosts.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { Visitor } from '../testing/visitor.ts';

let platform: TestPlatform;
let people: TestPeople;
beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

/** Every sample by its name and labels, as it is written. */
async function scrape(): Promise<Map<string, number>> {
  const answer = await platform.fetch('/metrics');
  expect(answer.status).toBe(200);
  expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
  const lines = (await answer.text()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
  );
}

describe('/metrics', () => {
  it('counts what became of operations, how long starts took, and what exists', async () => {
    const before = await scrape();
    expect(before.get('wrenn_hosts_online')).toBe(1);
    expect(before.get('wrenn_capsules{status="running"}')).toBe(0);

    const id = await platform.createCapsule();
    const after = await scrape();
    expect(after.get('wrenn_operations_total{kind="create",outcome="ok"}')).toBe(1);
    expect(after.get('wrenn_operation_duration_seconds_count{kind="create"}')).toBe(1);
    expect(after.get('wrenn_operation_duration_seconds_sum{kind="create"}')).toBeGreaterThan(0);
    expect(after.get('wrenn_capsules{status="running"}')).toBe(1);
    expect(after.get('process_resident_memory_bytes')).toBeGreaterThan(1e6);

    await platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE' });
    const end = await scrape();
    expect(end.get('wrenn_operations_total{kind="destroy",outcome="ok"}')).toBe(1);
    expect(end.get('wrenn_capsules{status="running"}')).toBe(0);
    expect([...end.keys()].join('\n')).not.toMatch(/(cl|host|team|key)-[0-9a-z]{25}/);
  });

  it('counts the timeline of a create, step by step', async () => {
    const before = await scrape();
    const id = await platform.createCapsule();
    const { trace } = (await platform.call(`/v1/capsules/${id}?trace=1`)).body;
    const after = await scrape();
    const grown = (sample: string) => (after.get(sample) ?? 0) - (before.get(sample) ?? 0);
    expect(grown('wrenn_capsule_start_duration_seconds_count{kind="create"}')).toBe(1);
    expect(grown('wrenn_capsule_start_duration_seconds_sum{kind="create"}')).toBeCloseTo(trace.duration_ms / 1000, 6);
    expect(trace.steps).not.toEqual([]);
    for (const { name, where } of trace.steps) {
      const labels = `{kind="create",where="${where}",step="${name}"}`;
      expect(grown(`wrenn_capsule_start_step_duration_seconds_count${labels}`), labels).toBe(1);
    }
  });

  it('tells failures by their code', async () => {
    platform.host.beforeCreate = async () => {
      throw new Error('broken');
    };
    const { status, body } = await platform.call('/v1/capsules', { json: {} });
    platform.host.beforeCreate = async () => undefined;
    expect(status).toBeGreaterThanOrEqual(500);
    const samples = await scrape();
    expect(samples.get(`wrenn_operations_total{kind="create",outcome="${body.error.reason}"}`)).toBe(1);
    expect(samples.get(`wrenn_api_errors_total{code="${body.error.reason}"}`)).toBe(1);
  });

  it('tells of hosts, of what is reserved of them, and of searches for one', async () => {
    const before = await scrape();
    expect(before.get('wrenn_hosts_by_status{status="online"}')).toBe(1);
    expect(before.get('wrenn_hosts_by_status{status="unreachable"}')).toBe(0);
    expect(before.get('wrenn_hosts_capacity{resource="vcpus"}')).toBeGreaterThanOrEqual(4);
    expect(before.get('wrenn_hosts_capacity{resource="memory_bytes"}')).toBeGreaterThanOrEqual(1024 ** 3);
    await platform.createCapsule({ vcpus: 2, memory_mb: 512 });
    expect((await platform.call('/v1/capsules', { json: { template: 'nothing' } })).status).toBe(404);
    const after = await scrape();
    const grown = (name: string) => (after.get(name) ?? 0) - (before.get(name) ?? 0);
    expect(grown('wrenn_hosts_reserved{resource="vcpus"}')).toBe(2);
    expect(grown('wrenn_hosts_reserved{resource="memory_bytes"}')).toBe(512 * 1024 ** 2);
    expect(grown('wrenn_placements_total{outcome="ok"}')).toBe(1);
    expect(grown('wrenn_placements_total{outcome="template_not_found"}')).toBe(1);
    expect(grown('wrenn_placement_duration_seconds_count')).toBe(2);
    expect(after.get('wrenn_api_errors_total{code="template_not_found"}')).toBe(1);
  });

  it('counts heartbeats, and what teams use of their pools', async () => {
    const admin = await people.logIn(await people.addUser({ isAdmin: true }), undefined);
    const visitor = new Visitor(platform, people);
    const { body } = await visitor.call('/v1/hosts', { token: admin, json: { type: 'regular' } });
    const agents = new TestHosts(platform);
    const joined = await agents.register(body.registration_token, { address: '10.0.0.5:50051' });
    expect((await agents.heartbeat(body.host.id, joined.body.token)).status).toBe(200);
    const team = await people.addTeam();
    await people.db.insert(pools).values({ teamId: team, vcpus: 8, memoryMb: 1024, diskMb: null });
    const samples = await scrape();
    expect(samples.get('wrenn_heartbeats_total{outcome="ok"}')).toBe(1);
    expect(samples.get('wrenn_heartbeat_duration_seconds_count')).toBe(1);
    expect(samples.get('wrenn_pools_limit{resource="vcpus"}')).toBe(8);
    expect(samples.get('wrenn_pools_limit{resource="memory_bytes"}')).toBe(1024 ** 3);
    expect(samples.get('wrenn_pools_used{resource="vcpus"}')).toBe(0);
  });

  it('needs an API key, as X-API-Key or as a bearer token', async () => {
    const open = await fetch(`${platform.baseUrl}/metrics`);
    expect(open.status).toBe(401);
    expect(errorResponseSchema.parse(await open.json()).error.code).toBe('unauthorized');
    const headers = { authorization: `Bearer ${platform.apiKey}` };
    expect((await fetch(`${platform.baseUrl}/metrics`, { headers })).status).toBe(200);
  });
});
