import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { context, SpanKind } from '@opentelemetry/api';
import { traceSteps } from '@wrenn/host-agent/server/trace-steps';
import { startStopwatch } from '@wrenn/testing/stopwatch';
import { tracedVerbs } from '@wrenn/tracing/connect';
import { acceptSpan, childSpan, traceHeaders } from '@wrenn/tracing/spans';
import { startTracing, type Tracing } from '@wrenn/tracing/tracing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openGuest } from '../guest/guest.ts';
import type { Host } from '../hosts/host.ts';
import { type OtlpReceiver, type ReceivedSpan, startOtlpReceiver } from '../testing/otlp-receiver.ts';
import { TestPlatform } from '../testing/test-platform.ts';

let collector: OtlpReceiver;
let platform: TestPlatform;
let agent: Tracing;
beforeAll(async () => {
  collector = await startOtlpReceiver();
  agent = startTracing({ endpoint: collector.endpoint, service: 'wrenn-agent', version: 'test' });
  platform = await TestPlatform.start({ OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint });
  platform.host.interceptors.push(tracedVerbs(agent.tracer), traceSteps);
  await platform.stopControlPlane();
  await platform.host.restart();
  await platform.startControlPlane();
});
afterAll(async () => {
  await platform[Symbol.asyncDispose]();
  await collector[Symbol.asyncDispose]();
});

const newId = () => ({ traceId: randomBytes(16).toString('hex'), spanId: randomBytes(8).toString('hex') });

function single(spans: readonly ReceivedSpan[], name: string, service: string): ReceivedSpan {
  const found = spans.filter((span) => span.name === name && span.service === service);
  expect(found, `${name} of ${service} among ${spans.map((span) => span.name).join(', ')}`).toHaveLength(1);
  return found[0] as ReceivedSpan;
}

it('makes one trace of a request, from the client to the agent', async () => {
  const client = newId();
  const other = newId();
  const headers = (ids: { traceId: string; spanId: string }) => ({
    traceparent: `00-${ids.traceId}-${ids.spanId}-01`,
  });
  const created = await platform.call('/v1/capsules', { json: {}, headers: headers(client) });
  expect(created.status).toBe(201);
  const exec = { cmd: 'true' };
  const ran = await platform.call(`/v1/capsules/${created.body.id}/exec`, { json: exec, headers: headers(other) });
  expect(ran.body.exit_code).toBe(0);
  const failed = newId();
  await platform.call('/v1/capsules/cl-unknown', { headers: headers(failed) });
  await platform.fetch('/ready', { headers: headers(client) });
  // Both send what is left when they end.
  await platform.stopControlPlane();
  await agent[Symbol.asyncDispose]();

  const trace = collector.spans.filter(({ traceId }) => traceId === client.traceId);
  const verb = 'wrenn.host.v1.HostService/CreateVm';
  const request = single(trace, 'POST /v1/capsules', 'wrenn-cp');
  const operation = single(trace, 'operation capsule.create', 'wrenn-cp');
  const call = single(trace, verb, 'wrenn-cp');
  const served = single(trace, verb, 'wrenn-agent');
  const step = single(trace, 'restore', 'wrenn-agent');
  expect(request.parentSpanId).toBe(client.spanId);
  expect(operation.parentSpanId).toBe(request.spanId);
  expect(call.parentSpanId).toBe(operation.spanId);
  expect(served.parentSpanId).toBe(call.spanId);
  expect(step.parentSpanId).toBe(served.spanId);
  expect(trace.some(({ name }) => name.includes('/ready'))).toBe(false);

  const second = collector.spans.filter(({ traceId }) => traceId === other.traceId);
  const parent = single(second, 'POST /v1/capsules/:id/exec', 'wrenn-cp');
  const started = second.find(({ name }) => name === 'process.Process/Start');
  expect(started?.parentSpanId).toBe(parent.spanId);

  const [refused] = collector.spans.filter(({ traceId }) => traceId === failed.traceId);
  expect(refused?.attributes).toContainEqual({ key: 'error.type', value: { stringValue: 'capsule_not_found' } });
  // A mistake of the client's, not of the server's.
  expect(refused?.status?.code ?? 0).toBe(0);
});

it('tells the guest to which trace a request belongs, and nobody once it is over', async () => {
  await using tracing = startTracing({ endpoint: collector.endpoint, service: 'test', version: 'test' });
  const heard: (string | undefined)[] = [];
  const envd = createServer((request, response) => {
    heard.push(request.headers.traceparent as string | undefined);
    response.end();
  });
  envd.listen(0, '127.0.0.1');
  await once(envd, 'listening');
  const { port } = envd.address() as AddressInfo;
  using guest = openGuest({ tunnel: async () => connect(port, '127.0.0.1') } as unknown as Host, 'cl-1', 'token');
  const ask = async () => {
    const answer = await guest.fetch({ method: 'GET', path: '/files', signal: AbortSignal.timeout(5000) });
    await answer.resume().toArray();
  };
  const opened = acceptSpan(tracing.tracer, 'a request', { kind: SpanKind.SERVER }, () => undefined);
  await context.with(opened.context, ask);
  opened.end();
  await context.with(opened.context, async () => {
    await ask();
    expect(childSpan('later', { kind: SpanKind.INTERNAL })).toBeUndefined();
  });
  await ask();
  const { traceId, spanId } = opened.span.spanContext();
  expect(heard).toEqual([`00-${traceId}-${spanId}-01`, undefined, undefined]);
  envd.close();
});

it('is not held up by a collector that is away', async () => {
  const { tracer, [Symbol.asyncDispose]: end } = startTracing({
    ...{ endpoint: 'http://127.0.0.1:9', service: 'test', version: 'test' },
  });
  acceptSpan(tracer, 'a request', { kind: SpanKind.SERVER }, () => undefined).end();
  using stopwatch = startStopwatch();
  await end();
  expect(stopwatch.elapsedMs).toBeLessThan(15_000);
});

it('without a collector passes on what the client sent, and makes up nothing', () => {
  const { tracer } = startTracing({ endpoint: undefined, service: 'test', version: 'test' });
  const { traceId, spanId } = newId();
  const traceparent = `00-${traceId}-${spanId}-01`;
  const open = (value: string | undefined) =>
    acceptSpan(tracer, 'a request', { kind: SpanKind.SERVER }, (name) => (name === 'traceparent' ? value : undefined));
  expect(traceHeaders(open(traceparent).context)).toEqual({ traceparent });
  expect(traceHeaders(open(undefined).context)).toEqual({});
  expect(traceHeaders(open('00-zz-1-01').context)).toEqual({});
});
