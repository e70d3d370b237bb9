import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient, createRouterTransport } from '@connectrpc/connect';
import { WrennError } from '@wrenn/protocol/errors';
import { HostService } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { VmView } from '../vms/vm-view.ts';
import { type AgentMetrics, createAgentMetrics } from './agent-metrics.ts';
import { readyChecks } from './ready-checks.ts';
import { WatchServer } from './watch-server.ts';

let root: string;
let watch: WatchServer;
let metrics: AgentMetrics;
let views: VmView[];
let vms: { state: 'recovering' | 'accepting' | 'stopping' };

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'wrenn-watch-'));
  views = [];
  vms = { state: 'recovering' };
  metrics = createAgentMetrics({
    root,
    vms: () => views,
    pool: { stats: () => ({ waiting: 2, wanted: 3, memoryMb: 1024, taken: 5, missed: 6, lost: 7 }) },
    slots: { readyCount: 4 },
    sampler: { stats: () => ({ kept: 9, lastMs: 1500 }) },
  });
  watch = await WatchServer.listen({
    ...{ address: { host: '127.0.0.1', port: 0 }, metrics, log: pino({ level: 'silent' }) },
    checks: () => readyChecks({ root, vms }),
  });
});
afterEach(async () => {
  await watch[Symbol.asyncDispose]();
  await rm(root, { recursive: true, force: true });
});

const get = (path: string, init?: RequestInit) => fetch(`http://127.0.0.1:${watch.port}${path}`, init);

async function scrape(): Promise<Map<string, number>> {
  const lines = (await (await get('/metrics')).text()).split('\n').filter((line) => line && !line.startsWith('#'));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]));
}

it('is well as soon as it runs, and ready while it carries out verbs', async () => {
  expect([(await get('/health')).status, (await get('/nothing')).status]).toEqual([200, 404]);
  expect((await get('/metrics', { method: 'POST' })).status).toBe(405);
  const before = await get('/ready');
  expect([before.status, await before.json()]).toEqual([
    503,
    {
      ready: false,
      checks: { verbs: { ok: false, detail: expect.stringContaining('taking over') }, disk: expect.anything() },
    },
  ]);
  vms.state = 'accepting';
  expect(await (await get('/ready')).json()).toMatchObject({ ready: true, checks: { disk: { ok: true } } });
  vms.state = 'stopping';
  const end = await get('/ready');
  const body = { ready: false, checks: { verbs: { detail: 'shutting down' } } };
  expect(end.status).toBe(503);
  expect(await end.json()).toMatchObject(body);
});

it('says so where it cannot find out', async () => {
  await rm(root, { recursive: true });
  expect([(await get('/ready')).status, (await get('/metrics')).status]).toEqual([500, 500]);
  expect((await get('/health')).status).toBe(200);
});

it('counts VMs by state, what waits for them, and what they hold', async () => {
  const view = (phase: string | undefined, ownBytes?: number) =>
    ({
      ...{ id: 'cl-1', record: phase && { phase, ...(phase === 'running' ? { slot: 1 } : {}) } },
      sleeping: ownBytes === undefined ? undefined : { ownBytes },
    }) as unknown as VmView;
  views = [view('running'), view('running', 100), view('creating'), view(undefined, 4000), view('destroying')];
  const samples = await scrape();
  const states = { running: 2, starting: 1, paused: 1, stopping: 1, failed: 0, pausing: 0 };
  for (const [state, count] of Object.entries(states)) {
    expect(samples.get(`wrenn_agent_vms{state="${state}"}`), state).toBe(count);
  }
  expect(samples.get('wrenn_agent_snapshot_bytes')).toBe(4100);
  expect(samples.get('wrenn_agent_warm_pool_vms{what="waiting"}')).toBe(2);
  expect(samples.get('wrenn_agent_warm_pool_takes{result="missed"}')).toBe(6);
  expect(samples.get('wrenn_agent_network_slots{state="ready"}')).toBe(4);
  expect(samples.get('wrenn_agent_network_slots{state="used"}')).toBe(4);
  expect(samples.get('wrenn_agent_sample_duration_seconds')).toBe(1.5);
  expect(samples.get('wrenn_agent_disk_bytes{what="free"}')).toBeGreaterThan(0);
  expect(samples.get('process_resident_memory_bytes')).toBeGreaterThan(1e6);
});

it('measures verbs that succeed and counts those that fail by their code', async () => {
  const transport = createRouterTransport(
    (router) =>
      router.service(HostService, {
        listVms: () => ({ vms: [] }),
        getVm: ({ id }) => {
          if (id === 'cl-defect') throw new TypeError('a defect');
          throw new WrennError('capsule_not_found', { id });
        },
      }),
    { router: { interceptors: [metrics.interceptor] } },
  );
  const client = createClient(HostService, transport);
  await client.listVms({});
  for (const id of ['cl-1', 'cl-2', 'cl-defect']) await expect(client.getVm({ id })).rejects.toThrow();
  const samples = await scrape();
  expect(samples.get('wrenn_agent_verb_duration_seconds_count{verb="ListVms"}')).toBe(1);
  expect(samples.get('wrenn_agent_verbs_total{verb="ListVms",outcome="ok"}')).toBe(1);
  expect(samples.get('wrenn_agent_verbs_total{verb="GetVm",outcome="capsule_not_found"}')).toBe(2);
  expect(samples.get('wrenn_agent_verbs_total{verb="GetVm",outcome="internal_error"}')).toBe(1);
});
