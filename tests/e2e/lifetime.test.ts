import { type CapsuleBody, capsuleSchema } from '@wrenn/protocol/rest/capsule';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Platform, startPlatform } from './support/platform.ts';

const PATIENCE_MS = 120_000;

let platform: Platform;
beforeAll(async () => {
  platform = await startPlatform();
});
afterAll(() => platform?.[Symbol.asyncDispose]());

async function call(method: string, path: string, body?: unknown): Promise<CapsuleBody> {
  const answer = await platform.call(method, `/v1/capsules${path}`, body);
  if (answer.status > 201) throw new Error(`${method} ${path} was answered with ${JSON.stringify(answer)}`);
  return capsuleSchema.parse(answer.body);
}

const sh = (id: string, script: string, more: object = {}) =>
  platform.call('POST', `/v1/capsules/${id}/exec`, { cmd: '/bin/sh', args: ['-c', script], ...more });
const isPaused = async (id: string) => (await call('GET', `/${id}`)).status === 'paused';
const isIdle = async (id: string) => (await call('GET', `/${id}`)).awake?.busy === false;

/** Waits until there is such a reason to be awake. */
const reason = (id: string, kind: string) =>
  until(`there is a ${kind}`, PATIENCE_MS, async () =>
    (await call('GET', `/${id}`)).awake?.reasons.find((found) => found.kind === kind),
  );

it('a guest is idle when nobody uses it, however often somebody asks', async () => {
  const { id } = await call('POST', '', { memory_mb: 256 });
  await until('it is idle', PATIENCE_MS, () => isIdle(id));
  await call('PATCH', `/${id}`, { timeout_sec: 4 });
  await until('it is paused', PATIENCE_MS, () => isPaused(id));
  await platform.call('DELETE', `/v1/capsules/${id}`);
});

it('a lease of an unprivileged user keeps a guest awake, and it sleeps after that', {
  timeout: 360_000,
}, async () => {
  const { id } = await call('POST', '', { memory_mb: 256 });
  const lease = await sh(id, 'echo 600 > /run/wrenn/leases/build && cat /run/wrenn/leases/build && id -un');
  expect(lease.body).toMatchObject({ stdout: '600\nuser\n' });
  expect((await reason(id, 'lease')).detail).toMatch(/^lease build until /);
  const leasedAt = Date.now();
  await sh(id, 'echo 20 > /run/wrenn/leases/build');
  await call('PATCH', `/${id}`, { timeout_sec: 3 });
  await until('it is paused', PATIENCE_MS, () => isPaused(id));
  const { slept_at } = await call('GET', `/${id}`);
  // By the clock of the guest, which is a second off at most.
  expect(Date.parse(slept_at ?? '')).toBeGreaterThan(leasedAt + 20_000 - 1000);
  await platform.call('DELETE', `/v1/capsules/${id}`);
});
