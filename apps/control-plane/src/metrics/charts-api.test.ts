import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

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

it('draws a running capsule from what its host measures, and only for its team', async () => {
  const id = await platform.createCapsule();
  const startedAt = platform.host.vm(id)?.startedAt;
  if (!startedAt) throw new Error('it does not run');
  const at = timestampFromDate(new Date(Date.now() - 5000));
  const measured = { cpuPct: 12.5, memoryBytes: 1024n, diskBytes: 4096n, netRxBytes: 7n, netTxBytes: 8n };
  platform.host.stats.push({ id, at, countedFrom: startedAt, ...measured });
  const { status, body } = await platform.call(`/v1/capsules/${id}/metrics`);
  expect(status).toBe(200);
  expect(body).toMatchObject({ sandbox_id: id, range: '10m' });
  const drawn = { cpu_pct: 12.5, mem_bytes: 1024, disk_bytes: 4096, net_rx_bytes: 7, net_tx_bytes: 8 };
  expect(body.points).toEqual([expect.objectContaining(drawn)]);

  const stranger = await people.addKey(await people.addTeam());
  const headers = { 'x-api-key': stranger.key };
  expect((await platform.call(`/v1/capsules/${id}/metrics`, { headers })).status).toBe(404);
  expect((await platform.call(`/v1/capsules/${id}/metrics?range=1w`)).status).toBe(400);
});

it('draws what the team has, from samples that the control plane takes', async () => {
  const before = (await platform.call('/v1/capsules/stats')).body.current.running_count;
  await platform.createCapsule();
  const { status, body } = await platform.call('/v1/capsules/stats?range=5m');
  expect(status).toBe(200);
  expect(body.range).toBe('5m');
  expect(body.current.running_count).toBe(before + 1);
  expect(body.peaks.running_count).toBe(before + 1);
  // It samples when it starts what the first has not yet, as its team had no capsule then.
  await using _another = await platform.startAnother();
  await until(
    'a sample was taken',
    async () => (await platform.call('/v1/capsules/stats?range=5m')).body.series.labels.length > 0,
  );
});
