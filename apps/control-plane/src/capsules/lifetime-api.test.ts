import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import { capsuleSchema } from '@wrenn/protocol/rest/capsule';
import { startStopwatch } from '@wrenn/testing/stopwatch';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { TestPlatform } from '../testing/test-platform.ts';

const PATIENCE_MS = 90_000;
/** By then a capsule whose timeout is four seconds or less would have been ended if nothing had kept it. */
const LONG_MS = 10_000;

// Many tests at once, each of which waits for several timeouts.
vi.setConfig({ testTimeout: 180_000 });

let platform: TestPlatform;
beforeAll(async () => {
  // Of two control planes each must have heard of the host by then.
  platform = await TestPlatform.start({}, { hostSilenceMs: 3000 });
});
afterAll(() => platform[Symbol.asyncDispose]());

const get = async (id: string) => (await platform.call(`/v1/capsules/${id}`)).body;
const create = (settings: object) => platform.createCapsule({ on_timeout: 'destroy', ...settings });
const patch = (id: string, json: object) => platform.call(`/v1/capsules/${id}`, { method: 'PATCH', json });
const sh = (command: string) => ({ cmd: 'sh', args: ['-c', command] });
const isStopped = async (id: string) => (await get(id)).status === 'stopped';
const untilStopped = (id: string) => until('it is stopped', PATIENCE_MS, () => isStopped(id));

/** Waits until a capsule that would be idle otherwise counts as used long after its start. */
async function untilKeptAwake(id: string): Promise<void> {
  const began = Date.now();
  await until('it was kept awake', PATIENCE_MS, async () => {
    const { status, last_active_at } = await get(id);
    if (status !== 'running') throw new Error(`the capsule is ${status}`);
    return Date.parse(last_active_at) - began > LONG_MS;
  });
}

describe.concurrent('an idle capsule', () => {
  it('is destroyed after its timeout, however often somebody asks about it', async () => {
    const id = await create({ timeout_sec: 1 });
    await untilStopped(id);
  });

  it('is used by a foreground command', async () => {
    const id = await create({ timeout_sec: 1 });
    const answer = await platform.call(`/v1/capsules/${id}/exec`, { json: sh('sleep 7; echo done') });
    expect(answer).toMatchObject({ status: 200, body: { stdout: 'done\n' } });
    await untilStopped(id);
  });

  it('is not used by a background command that waits', async () => {
    const id = await create({ timeout_sec: 1 });
    await platform.call(`/v1/capsules/${id}/exec`, { json: { ...sh('sleep 600'), background: true } });
    await untilStopped(id);
  });

  it('is used by who follows the output of a process, until they leave', async () => {
    const id = await create({ timeout_sec: 1 });
    const { body } = await platform.call(`/v1/capsules/${id}/exec`, { json: { ...sh('sleep 600'), background: true } });
    const stream = await platform.connect(`/v1/capsules/${id}/processes/${body.tag}/stream`);
    await untilKeptAwake(id);
    stream.socket.close();
    await untilStopped(id);
  });

  it('is not used by an open terminal that is silent', async () => {
    const id = await create({ timeout_sec: 1 });
    const terminal = await platform.connect(`/v1/capsules/${id}/pty`);
    terminal.send({ type: 'start', ...sh('while :; do sleep 0.3; done'), cols: 80, rows: 24 });
    await terminal.next();
    await untilStopped(id);
  });

  it('is used by what a terminal shows', async () => {
    const id = await create({ timeout_sec: 1 });
    const terminal = await platform.connect(`/v1/capsules/${id}/pty`);
    terminal.send({ type: 'start', ...sh('while :; do echo; sleep 0.3; done'), cols: 80, rows: 24 });
    await untilKeptAwake(id);
    terminal.socket.close();
    await untilStopped(id);
  });

  it('is used by what is typed into a terminal', async () => {
    const id = await create({ timeout_sec: 1 });
    const terminal = await platform.connect(`/v1/capsules/${id}/pty`);
    terminal.send({ type: 'start', ...sh('stty -echo; cat >/dev/null'), cols: 80, rows: 24 });
    const typing = setInterval(() => terminal.send({ type: 'input', data: 'Cg==' }), 200);
    await untilKeptAwake(id).finally(() => clearInterval(typing));
    await untilStopped(id);
  });

  it('is used by who reads its files', async () => {
    const id = await create({ timeout_sec: 1 });
    const list = () => void platform.call(`/v1/capsules/${id}/files/list`, { json: { path: '/' } });
    const listing = setInterval(list, 300);
    await untilKeptAwake(id).finally(() => clearInterval(listing));
    await untilStopped(id);
  });

  it('is used by a ping', async () => {
    const id = await create({ timeout_sec: 4 });
    const pinging = setInterval(() => void platform.fetch(`/v1/capsules/${id}/ping`, { method: 'POST' }), 300);
    await untilKeptAwake(id).finally(() => clearInterval(pinging));
    await untilStopped(id);
  });
});

describe.concurrent('a capsule at work', () => {
  it('stays awake as long as a lease is held', async () => {
    const id = await create({ timeout_sec: 1 });
    const lease = join(platform.host.leaseDirectory(id), 'build');
    await writeFile(lease, '600');
    await writeFile(join(platform.host.leaseDirectory(id), 'wrong'), 'for ever');
    await untilKeptAwake(id);
    const expiresAt = Date.now() + 3000;
    await writeFile(lease, new Date(expiresAt).toISOString());
    await untilStopped(id);
    expect(Date.now()).toBeGreaterThan(expiresAt);
  });

  it('stays awake as long as it uses its CPU', async () => {
    // Looked at over half of that, which must be long beside what a busy machine keeps a loop waiting.
    const id = await create({ timeout_sec: 4 });
    const loop = { ...sh('while :; do :; done'), background: true, tag: 'busy' };
    await platform.call(`/v1/capsules/${id}/exec`, { json: loop });
    await untilKeptAwake(id);
    await platform.fetch(`/v1/capsules/${id}/processes/busy?signal=SIGKILL`, { method: 'DELETE' });
    await untilStopped(id);
  });

  it('is not ended because of a probe that failed', async () => {
    const id = await create({ timeout_sec: 1 });
    await writeFile(join(platform.host.leaseDirectory(id), 'build'), '600');
    platform.host.freeze(id, true);
    await delay(5000);
    platform.host.freeze(id, false);
    await untilKeptAwake(id);
    await platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE' });
  });

  it('is ended when its guest answers nobody any more', async () => {
    const id = await create({ timeout_sec: 1 });
    await writeFile(join(platform.host.leaseDirectory(id), 'build'), '600');
    platform.host.freeze(id, true);
    await untilStopped(id);
  });
});

describe.concurrent('the deadline', () => {
  it('ends a capsule in use', async () => {
    const id = await create({ deadline_sec: 2 });
    const exec = platform.call(`/v1/capsules/${id}/exec`, { json: sh('sleep 600') });
    await untilStopped(id);
    expect((await exec).status).toBeGreaterThanOrEqual(400);
  });

  it('can be set and taken away while it runs', async () => {
    const ended = await create({});
    const kept = await create({ deadline_sec: 30 });
    expect((await patch(kept, { deadline_sec: null })).body.deadline_at).toBe(null);
    const past = Date.now() + 31_000;
    const before = Date.now();
    const { body } = await patch(ended, { deadline_sec: 2 });
    expect(Date.parse(body.deadline_at)).toBeGreaterThanOrEqual(before + 1990);
    expect(Date.parse(body.deadline_at)).toBeLessThanOrEqual(Date.now() + 2010);
    await untilStopped(ended);
    await until('the other deadline has passed', () => Date.now() > past);
    expect((await get(kept)).status).toBe('running');
  });
});

describe.concurrent('a capsule that is put to sleep by its time', () => {
  const post = (id: string, verb: string) => platform.call(`/v1/capsules/${id}/${verb}`, { method: 'POST' });
  const untilPaused = (id: string) =>
    until('it is paused', PATIENCE_MS, async () => (await get(id)).status === 'paused');

  it('is paused where nothing else was asked for, and after a resume its idle time begins anew', async () => {
    const id = await platform.createCapsule({ timeout_sec: 1 });
    await untilPaused(id);
    const asleep = await get(id);
    expect(asleep).toMatchObject({ generation: 1, timeout_sec: 1 });
    expect(asleep).not.toHaveProperty('awake');
    const { status, body } = await post(id, 'resume');
    expect([status, body.status]).toEqual([200, 'running']);
    expect(Date.parse(body.last_active_at)).toBeGreaterThan(Date.parse(asleep.slept_at));
    await untilPaused(id);
    expect((await get(id)).generation).toBe(2);
  });

  it('keeps a deadline that is still to come, and loses one that passed while it slept', async () => {
    const [passed, coming] = [await create({ deadline_sec: 600 }), await create({ deadline_sec: 600 })];
    for (const id of [passed, coming]) expect((await post(id, 'pause')).status).toBe(200);
    expect((await patch(passed, { deadline_sec: 1, on_timeout: 'pause' })).body.status).toBe('paused');
    const { deadline_at } = await get(passed);
    await until('the deadline has passed', () => Date.now() > Date.parse(deadline_at) + 1000);
    expect((await get(passed)).status).toBe('paused');
    expect((await post(passed, 'resume')).body).toMatchObject({ status: 'running', deadline_at: null });
    expect((await post(coming, 'resume')).body.deadline_at).toBe((await get(coming)).deadline_at);
    expect((await get(coming)).deadline_at).not.toBe(null);
    await patch(passed, { deadline_sec: 1 });
    await untilPaused(passed);
  });

  it('runs on when it cannot be paused, and is not tried again at once unless its settings change', async () => {
    const id = await platform.createCapsule({ timeout_sec: 1 });
    const attemptsMs: number[] = [];
    platform.host.before.pause = async (request) => {
      if (request.id !== id) return;
      attemptsMs.push(Date.now());
      throw new WrennError('host_disk_full');
    };
    await until('it was tried', PATIENCE_MS, () => attemptsMs.length > 0);
    await until('it runs', async () => (await get(id)).status === 'running');
    const tried = Date.now();
    await until('several looks have passed', () => Date.now() - tried > 5000);
    const [first = 0, second = Number.POSITIVE_INFINITY] = attemptsMs;
    expect(second - first).toBeGreaterThan(5000);
    const before = attemptsMs.length;
    await patch(id, { timeout_sec: 1 });
    await until('it was tried again', () => attemptsMs.length > before);
    delete platform.host.before.pause;
    await patch(id, { timeout_sec: 1 });
    await untilPaused(id);
  });
});

describe.concurrent('PATCH', () => {
  it('shortens an idle timeout at once, and lengthens it', async () => {
    const [shorter, longer] = [await create({ timeout_sec: 600 }), await create({ timeout_sec: 3 })];
    expect((await patch(longer, { timeout_sec: 600 })).body.timeout_sec).toBe(600);
    await until('it has been idle for two seconds', async () => {
      const { last_active_at } = await get(shorter);
      return Date.now() - Date.parse(last_active_at) > 2000;
    });
    using stopwatch = startStopwatch();
    expect((await patch(shorter, { timeout_sec: 1 })).body).toMatchObject({ timeout_sec: 1, status: 'running' });
    await untilStopped(shorter);
    // Not only at the next look of its own accord.
    expect(stopwatch.elapsedMs).toBeLessThan(10_000);
    await until('the earlier timeout of the other has passed', async () => {
      const { last_active_at } = await get(longer);
      return Date.now() - Date.parse(last_active_at) > 7000;
    });
    expect((await get(longer)).status).toBe('running');
  });

  it('changes what it names, and leaves the rest', async () => {
    const id = await create({ timeout_sec: 600, metadata: { a: '1', b: '2' }, deadline_sec: 900 });
    const before = await get(id);
    const changed = { on_timeout: 'pause', auto_resume: true, metadata: { a: '3' } };
    const { status, body } = await patch(id, changed);
    expect(status).toBe(200);
    expect(capsuleSchema.parse(body)).toMatchObject({ on_timeout: 'pause', auto_resume: true, timeout_sec: 600 });
    expect(body.metadata).toMatchObject({ a: '3', kernel_version: 'test' });
    expect(body.metadata.b).toBe(undefined);
    expect(body.deadline_at).toBe(before.deadline_at);
    expect(body.last_active_at).toBe(before.last_active_at);
    expect((await patch(id, {})).status).toBe(200);
    await platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE' });
    expect(await patch(id, changed)).toMatchObject({ status: 409, body: { error: { reason: 'invalid_state' } } });
  });

  it.each([{ timeout_sec: -1 }, { deadline_sec: 0 }, { on_timeout: 'hide' }, { metadata: { kernel_version: 'x' } }])(
    'refuses %j',
    async (json) => {
      const id = await create({});
      expect(await patch(id, json)).toMatchObject({ status: 400, body: { error: { reason: 'invalid_request' } } });
    },
  );

  it('knows no capsule of nobody', async () => {
    const answer = await patch('cl-0000000000000000000000000', { timeout_sec: 1 });
    expect(answer).toMatchObject({ status: 404, body: { error: { reason: 'capsule_not_found' } } });
  });
});

describe.concurrent('what keeps a capsule awake', () => {
  it('is nothing when it is idle, and then since when is told', async () => {
    const id = await create({});
    await until('it is idle', async () => (await get(id)).awake?.busy === false);
    const { awake, last_active_at } = await get(id);
    expect(awake).toEqual({ busy: false, reasons: [], idle_since: last_active_at });
  });

  it('is told of commands, leases and CPU, each with its begin', async () => {
    const id = await create({});
    const began = Date.now();
    await writeFile(join(platform.host.leaseDirectory(id), 'build'), '600');
    const loop = { ...sh('while :; do :; done'), background: true };
    await platform.call(`/v1/capsules/${id}/exec`, { json: loop });
    const stream = await platform.connect(`/v1/capsules/${id}/exec/stream`);
    stream.send({ type: 'start', ...sh('sleep 600') });
    await stream.next();
    const kinds = async () => (await get(id)).awake?.reasons.map(({ kind }: { kind: string }) => kind).sort();
    await until('all is told', async () => String(await kinds()) === 'cpu,lease,stream');
    const { awake } = capsuleSchema.parse(await get(id));
    expect(awake).toMatchObject({ busy: true, idle_since: null });
    for (const { since } of awake?.reasons ?? []) {
      expect(Date.parse(since)).toBeGreaterThan(began - 2000);
      expect(Date.parse(since)).toBeLessThan(Date.now() + 2000);
    }
    const details = Object.fromEntries(awake?.reasons.map(({ kind, detail }) => [kind, detail]) ?? []);
    expect(details.stream).toBe('command: sh -c sleep 600');
    expect(details.lease).toMatch(/^lease build until \d{4}-/);
    expect(details.cpu).toMatch(/^\d+ % of one vCPU$/);
    stream.socket.close();
  });

  it('is left out when the guest does not answer, and nobody waits long for that', async () => {
    const id = await create({});
    platform.host.freeze(id, true);
    using stopwatch = startStopwatch();
    expect(await get(id)).not.toHaveProperty('awake');
    expect(stopwatch.elapsedMs).toBeLessThan(10_000);
    platform.host.freeze(id, false);
    await until('it is told again', async () => (await get(id)).awake !== undefined);
  });
});

describe('two control planes', () => {
  it('do not end what is used through the other', async () => {
    await using _another = await platform.startAnother();
    // Watched for half of that before it is ended: longer than it takes the other one to hear of a use.
    const id = await create({ timeout_sec: 4 });
    const pinging = setInterval(() => void platform.fetch(`/v1/capsules/${id}/ping`, { method: 'POST' }), 300);
    await untilKeptAwake(id).finally(() => clearInterval(pinging));
    await untilStopped(id);
  });
});

describe('a capsule whose host was silent', () => {
  it('has not been idle for that time', async () => {
    const id = await create({ timeout_sec: 600 });
    const before = await get(id);
    await platform.host.goSilent();
    await until('it is missing', PATIENCE_MS, async () => (await get(id)).status === 'missing');
    await platform.host.listen();
    await until('it runs again', PATIENCE_MS, async () => (await get(id)).status === 'running');
    expect(Date.parse((await get(id)).last_active_at)).toBeGreaterThan(Date.parse(before.last_active_at));
  });
});
