import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '@wrenn/testing/until';
import { expect, it } from 'vitest';
import { shell, startTestEnvd, type TestEnvd } from '../testing/test-envd.ts';
import type { Activity } from './activity.ts';
import { machineCpuTime } from './cpu-time.ts';

async function activityOf(envd: TestEnvd, token = ''): Promise<Activity> {
  const answer = await fetch(`${envd.url}/activity`, { headers: { 'X-Access-Token': token } });
  if (answer.status !== 200) throw new Error(`GET /activity was answered with ${answer.status}`);
  return (await answer.json()) as Activity;
}

/** By a clock whose steps are a few milliseconds. */
function expectBetween(time: string | null | undefined, fromMs: number, toMs: number): void {
  const at = Date.parse(time ?? '');
  expect(at).toBeGreaterThanOrEqual(fromMs - 20);
  expect(at).toBeLessThanOrEqual(toMs + 20);
}

it('activity needs the token', async () => {
  await using envd = await startTestEnvd();
  await envd.init({ accessToken: 'secret' });
  expect((await fetch(`${envd.url}/activity`)).status).toBe(401);
  expect(await activityOf(envd, 'secret')).toMatchObject({ leases: [], processes: 0, open_streams: 0 });
});

it('activity tells of leases', async () => {
  await using place = await startTestEnvd();
  const leaseDirectory = join(place.directory, 'leases');
  await using envd = await startTestEnvd({ leaseDirectory });
  const began = Date.now();
  writeFileSync(join(leaseDirectory, 'build'), '600');
  writeFileSync(join(leaseDirectory, 'wrong'), 'soon');
  const { leases, malformed_leases } = await activityOf(envd);
  const ended = Date.now();
  expect(leases).toMatchObject([{ name: 'build' }]);
  expectBetween(leases[0]?.since, began, ended);
  expectBetween(leases[0]?.expires_at, began + 600_000, ended + 600_000);
  expect(malformed_leases).toEqual([{ name: 'wrong', problem: 'holds neither seconds nor an RFC 3339 time' }]);
});

it('activity counts processes, and who follows their output, but not terminals', async () => {
  await using envd = await startTestEnvd();
  const [left, gone] = [new AbortController(), new AbortController()];
  const began = Date.now();
  const followed = envd.process.start(shell('sleep 60'), { signal: gone.signal })[Symbol.asyncIterator]();
  const alone = envd.process.start(shell('sleep 60'), { signal: left.signal })[Symbol.asyncIterator]();
  const terminal = envd.process
    .start({ ...shell('sleep 60'), pty: { size: { cols: 80, rows: 24 } } }, { signal: gone.signal })
    [Symbol.asyncIterator]();
  await Promise.all([followed.next(), alone.next(), terminal.next()]);
  const attached = Date.now();
  expect(await activityOf(envd)).toMatchObject({ processes: 3, open_streams: 2 });
  left.abort();
  await alone.next().catch(() => undefined);
  await until('one has left', async () => (await activityOf(envd)).open_streams === 1);
  const { processes, open_streams_since } = await activityOf(envd);
  expect(processes).toBe(3);
  expectBetween(open_streams_since, began, attached);
  gone.abort();
  await Promise.allSettled([followed.next(), terminal.next()]);
  await until('all have left', async () => (await activityOf(envd)).open_streams_since === null);
});

it('activity tells how much CPU time was used', async () => {
  await using envd = await startTestEnvd();
  const gone = new AbortController();
  const before = (await activityOf(envd)).cpu;
  const busy = envd.process.start(shell('while :; do :; done'), { signal: gone.signal })[Symbol.asyncIterator]();
  await busy.next();
  await until('it has used 100 ms', async () => (await activityOf(envd)).cpu.busy_ms > before.busy_ms + 100);
  expect((await activityOf(envd)).cpu.uptime_ms).toBeGreaterThan(before.uptime_ms);
  gone.abort();
  await busy.next().catch(() => undefined);
});

it('a machine’s CPU time is in milliseconds', async () => {
  const first = machineCpuTime();
  // Both go on in steps of 10 ms, and not at the same moment.
  const second = await until('some time was used', () => {
    const now = machineCpuTime();
    return now.busy_ms > first.busy_ms && now.uptime_ms > first.uptime_ms ? now : undefined;
  });
  expect(second.uptime_ms - first.uptime_ms).toBeLessThan(60_000);
});
