import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Platform, startPlatform } from './support/platform.ts';

const PATIENCE_MS = 120_000;
/** Three starts without a memory snapshot, emulated, on a busy machine. */
const TEST_MS = 600_000;

let platform: Platform;
beforeAll(async () => {
  platform = await startPlatform();
});
afterAll(() => platform?.[Symbol.asyncDispose]());

// Answers are of many shapes, and a test that reads a wrong one fails.
// biome-ignore lint/suspicious/noExplicitAny: see above
type Json = any;

const call = (method: string, path: string, body?: unknown): Promise<{ status: number; body: Json }> =>
  platform.call(method, `/v1/capsules${path}`, body);
const post = (id: string, verb: string, body?: object) => call('POST', `/${id}/${verb}`, body);
const get = async (id: string) => (await call('GET', `/${id}`)).body;
const sh = async (id: string, script: string): Promise<string> =>
  (await post(id, 'exec', { cmd: '/bin/sh', args: ['-c', script] })).body.stdout;
const untilStatus = (id: string, ...oneOf: string[]) =>
  until(`${id} is ${oneOf.join(' or ')}`, PATIENCE_MS, async () => oneOf.includes((await get(id)).status));

/** A capsule with something in memory only. */
async function create(): Promise<string> {
  const { status, body } = await call('POST', '', { memory_mb: 256, envs: { COLOUR: 'green' } });
  if (status !== 201) throw new Error(`create was answered with ${JSON.stringify(body)}`);
  await sh(body.id, 'echo remembered > /dev/shm/note');
  return body.id;
}

const remembers = async (id: string) => expect(await sh(id, 'cat /dev/shm/note')).toBe('remembered\n');

describe('a capsule that sleeps', { timeout: TEST_MS }, () => {
  it('goes through every kind of sleep with its memory', async () => {
    const id = await create();
    expect((await post(id, 'pause')).body).toMatchObject({ status: 'paused', generation: 1 });
    expect((await post(id, 'verify')).body).toMatchObject({ ok: true, generation: 1 });
    const resumed = await post(id, 'resume?trace=1');
    expect(resumed.body).toMatchObject({ status: 'running', memory: 'kept' });
    const host = resumed.body.trace.steps.filter(({ where }: Json) => where === 'host').map(({ name }: Json) => name);
    expect(host).toEqual(expect.arrayContaining(['restore', 'init']));
    await remembers(id);

    await post(id, 'pause');
    const hibernated = await post(id, 'hibernate');
    expect(hibernated.body).toMatchObject({ status: 'hibernated', generation: 2, snapshot_bytes: null });
    expect((await post(id, 'resume')).body).toMatchObject({ status: 'running', generation: 2 });
    await remembers(id);

    await post(id, 'pause');
    expect((await post(id, 'resume?memory=discard')).body).toMatchObject({ status: 'running', memory: 'discarded' });
    expect(await sh(id, 'ls /dev/shm')).toBe('');
    expect((await call('DELETE', `/${id}`)).status).toBe(204);
  });

  it('lends its state to forks and templates', async () => {
    const id = await create();
    const { body } = await post(id, 'fork', { count: 2 });
    for (const child of body.capsules) await remembers(child.id);
    await remembers(id);
    const made = await post(id, 'snapshots', { name: 'remembering' });
    expect(made.status).toBe(201);
    const other = await call('POST', '', { template: 'remembering' });
    expect(other).toMatchObject({ status: 201, body: { memory_mb: 256, snapshot_id: made.body.id } });
    await remembers(other.body.id);
    expect(await sh(other.body.id, 'echo $COLOUR')).toBe('green\n');
    for (const each of [id, other.body.id, ...body.capsules.map((child: Json) => child.id)]) {
      expect((await call('DELETE', `/${each}`)).status).toBe(204);
    }
    expect((await platform.call('DELETE', '/v1/snapshots/remembering')).status).toBe(204);
  });

  it.each(['controlPlane', 'agent'] as const)('is not lost when %s is killed in the middle', async (victim) => {
    const id = await create();
    for (const [verb, during, after] of [
      ['pause', 'pausing', 'paused'],
      ['resume', 'resuming', 'running'],
      ['pause', 'pausing', 'paused'],
      ['hibernate', 'hibernating', 'hibernated'],
    ] as const) {
      const request = post(id, verb).catch(() => undefined);
      // On a busy machine it may be over before it is seen.
      await untilStatus(id, during, after);
      await platform[victim].end('SIGKILL');
      platform[victim].start();
      await platform.ready();
      await request;
      await untilStatus(id, after);
    }
    expect((await post(id, 'resume')).body).toMatchObject({ status: 'running', generation: 2 });
    await remembers(id);
    expect((await call('DELETE', `/${id}`)).status).toBe(204);
  });
});
