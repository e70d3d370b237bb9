import { freePort } from '@wrenn/config/free-port';
import { type OtlpReceiver, startOtlpReceiver } from '@wrenn/control-plane/testing/otlp-receiver';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Platform, startPlatform } from './support/platform.ts';

const MIB = 1024 * 1024;

interface Point {
  readonly cpu_pct: number;
  readonly mem_bytes: number;
  readonly disk_bytes: number;
  readonly net_rx_bytes: number;
  readonly net_tx_bytes: number;
}

let platform: Platform;
let agentUrl: string;
let collector: OtlpReceiver;
beforeAll(async () => {
  const metrics = `127.0.0.1:${await freePort()}`;
  agentUrl = `http://${metrics}`;
  collector = await startOtlpReceiver();
  const env = { WRENN_AGENT_METRICS_ADDR: metrics, OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint };
  platform = await startPlatform({ env });
});
afterAll(async () => {
  await platform?.[Symbol.asyncDispose]();
  await collector?.[Symbol.asyncDispose]();
});

async function pointsOf(id: string, range = '10m'): Promise<Point[]> {
  const { status, body } = await platform.call('GET', `/v1/capsules/${id}/metrics?range=${range}`);
  expect(status).toBe(200);
  return (body as { points: Point[] }).points;
}

const sum = (points: readonly Point[], name: keyof Point) => points.reduce((total, point) => total + point[name], 0);

async function agentValue(name: string): Promise<number> {
  const text = await (await fetch(`${agentUrl}/metrics`)).text();
  return Number(
    text
      .split('\n')
      .find((line) => line.startsWith(`${name} `))
      ?.split(' ')[1],
  );
}

it('draws what a microVM computes, holds, receives and sends, also when it is gone', async () => {
  expect((await fetch(`${agentUrl}/ready`)).status).toBe(200);
  const { status, body } = await platform.call('POST', '/v1/capsules', { timeout_sec: 0 });
  expect(status).toBe(201);
  const { id } = body as { id: string };
  await until('both programs have told what they did for it', 60_000, () => {
    const begin = collector.spans.find(({ name }) => name === 'POST /v1/capsules');
    const trace = collector.spans.filter(({ traceId }) => traceId === begin?.traceId);
    const has = (service: string, step: string) => trace.some((each) => each.service === service && each.name === step);
    const verb = 'wrenn.host.v1.HostService/CreateVm';
    return has('wrenn-cp', verb) && has('wrenn-agent', verb) && has('wrenn-agent', 'init');
  });
  expect(await agentValue('wrenn_agent_vms{state="running"}')).toBe(1);
  expect(await agentValue('wrenn_agent_verbs_total{verb="CreateVm",outcome="ok"}')).toBe(1);

  const busy = { cmd: '/bin/sh', args: ['-c', 'while :; do :; done'], background: true };
  expect((await platform.call('POST', `/v1/capsules/${id}/exec`, busy)).status).toBe(202);
  await until('it is seen to compute', 90_000, async () => (await pointsOf(id)).some(({ cpu_pct }) => cpu_pct > 10));
  const before = sum(await pointsOf(id), 'net_rx_bytes');

  const headers = { 'x-api-key': platform.apiKey, 'content-type': 'application/octet-stream' };
  const path = `${platform.baseUrl}/v1/capsules/${id}/files/stream/write?path=/tmp/received`;
  const written = await fetch(path, { method: 'POST', headers, body: new Uint8Array(8 * MIB) });
  expect(written.ok).toBe(true);
  await until('it is seen to receive', 60_000, async () => {
    return sum(await pointsOf(id), 'net_rx_bytes') - before > 8 * MIB;
  });
  const points = await pointsOf(id);
  expect(sum(points, 'net_tx_bytes')).toBeGreaterThan(0);
  expect(points.at(-1)?.mem_bytes).toBeGreaterThan(16 * MIB);
  expect(points.at(-1)?.disk_bytes).toBeGreaterThan(0);
  for (const { cpu_pct } of points) expect(cpu_pct).toBeLessThanOrEqual(100);

  expect((await platform.call('DELETE', `/v1/capsules/${id}`)).status).toBe(204);
  await until('the last of it is stored', 60_000, async () => {
    return sum(await pointsOf(id, '24h'), 'net_rx_bytes') > 8 * MIB;
  });
  expect(await agentValue('wrenn_agent_vms{state="running"}')).toBe(0);
});
