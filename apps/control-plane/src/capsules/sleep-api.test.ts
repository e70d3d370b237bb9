import { WrennError } from '@wrenn/protocol/errors';
import { capsuleSchema } from '@wrenn/protocol/rest/capsule';
import { verifyResponseSchema } from '@wrenn/protocol/rest/sleep';
import { until } from '@wrenn/testing/until';
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Verb } from '../testing/loopback-host.ts';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
beforeAll(async () => {
  platform = await TestPlatform.start();
});
afterAll(() => platform[Symbol.asyncDispose]());
afterEach(() => platform.host.behave());

type Init = Parameters<TestPlatform['fetch']>[1];
const post = (id: string, verb: string, init: Init = {}) =>
  platform.call(`/v1/capsules/${id}/${verb}`, { method: 'POST', ...init });
const get = async (id: string) => (await platform.call(`/v1/capsules/${id}`)).body;
const statusOf = async (id: string): Promise<string> => (await get(id)).status;
const untilStatus = (id: string, status: string) =>
  until(`${id} is ${status}`, async () => (await statusOf(id)) === status);
const destroy = (id: string) => platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE' });
const sh = (id: string, command: string) =>
  platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'sh', args: ['-c', command] } });

async function pausedCapsule(settings: object = {}): Promise<string> {
  const id = await platform.createCapsule(settings);
  expect((await post(id, 'pause')).status).toBe(200);
  return id;
}

async function hibernatedCapsule(): Promise<string> {
  const id = await pausedCapsule();
  expect((await post(id, 'hibernate')).status).toBe(200);
  return id;
}

async function connect(url: string) {
  const client = new Client(url);
  await client.connect();
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.end() });
}

/** Stops a verb in its middle. */
function hold(verb: Verb, when: 'before' | 'after' = 'before') {
  const reached = Promise.withResolvers<void>();
  const release = Promise.withResolvers<void>();
  platform.host[when][verb] = async () => {
    reached.resolve();
    await release.promise;
  };
  return { reached: reached.promise, release: () => release.resolve() };
}

function refuse(verb: Verb, error: WrennError) {
  platform.host.before[verb] = async () => {
    throw error;
  };
}

describe('pause and resume', () => {
  it('keep the processes of the guest, its token and its files', async () => {
    const id = await platform.createCapsule();
    const background = { cmd: 'sh', args: ['-c', 'echo $$ > pid; exec sleep 600'], background: true };
    await platform.call(`/v1/capsules/${id}/exec`, { json: background });
    const paused = await post(id, 'pause');
    expect(paused.status).toBe(200);
    expect(capsuleSchema.parse(paused.body)).toMatchObject({
      status: 'paused',
      generation: 1,
      snapshot_bytes: 4096,
      host_ip: null,
      memory: 'kept',
    });
    expect(paused.body.slept_at).not.toBeNull();
    expect((await sh(id, 'true')).body.error).toMatchObject({ reason: 'invalid_state', details: { status: 'paused' } });

    const resumed = await post(id, 'resume');
    expect(resumed).toMatchObject({ status: 200, body: { status: 'running', generation: 1, memory: 'kept' } });
    const answer = await sh(id, 'until [ -s pid ]; do sleep 0.1; done; kill -0 $(cat pid) && echo alive');
    expect(answer.body.stdout).toBe('alive\n');
    expect((await post(id, 'pause')).body).toMatchObject({ status: 'paused', generation: 2 });
    expect(platform.host.asked('pause').slice(-2)).toMatchObject([{ generation: 1 }, { generation: 2 }]);
  });

  it('answer a repeated request with the same idempotency key like the first', async () => {
    const id = await platform.createCapsule();
    const before = platform.host.asked('pause').length;
    const headers = { 'idempotency-key': `pause ${id}` };
    const answers = await Promise.all([1, 2, 3].map(() => post(id, 'pause', { headers })));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
    expect(platform.host.asked('pause')).toHaveLength(before + 1);
    const other = await platform.createCapsule();
    expect(await post(other, 'pause', { headers })).toMatchObject({
      status: 409,
      body: { error: { reason: 'idempotency_key_used' } },
    });
  });

  it('let one of several win', async () => {
    const id = await platform.createCapsule();
    const held = hold('pause');
    const first = post(id, 'pause');
    await held.reached;
    const others = await Promise.all([post(id, 'pause'), post(id, 'resume'), post(id, 'fork'), post(id, 'hibernate')]);
    for (const { status, body } of others) {
      expect([status, body.error.reason, body.error.details.status]).toEqual([409, 'invalid_state', 'pausing']);
    }
    held.release();
    expect((await first).status).toBe(200);
  });

  it('go on when their client leaves', async () => {
    const id = await platform.createCapsule();
    for (const [verb, end] of [
      ['pause', 'paused'],
      ['resume', 'running'],
    ] as const) {
      const held = hold(verb);
      const gone = new AbortController();
      const request = post(id, verb, { signal: gone.signal }).catch(() => 'gone');
      await held.reached;
      gone.abort();
      expect(await request).toBe('gone');
      held.release();
      await untilStatus(id, end);
    }
  });
});

describe('a pause', () => {
  it('that its host refuses leaves the capsule running, and the next one has the same number', async () => {
    const id = await platform.createCapsule();
    refuse('pause', new WrennError('host_disk_full'));
    expect(await post(id, 'pause')).toMatchObject({ status: 507, body: { error: { reason: 'host_disk_full' } } });
    expect(await get(id)).toMatchObject({ status: 'running', generation: 0 });
    expect((await sh(id, 'echo on')).body.stdout).toBe('on\n');
    platform.host.behave();
    expect((await post(id, 'pause')).body).toMatchObject({ status: 'paused', generation: 1 });
  });

  it('asks again for the same generation when its host went away and came back', async () => {
    const id = await platform.createCapsule();
    let first = true;
    platform.host.after.pause = async () => {
      if (!first) return;
      first = false;
      void platform.host.restart();
      await new Promise(() => undefined);
    };
    expect((await post(id, 'pause')).body).toMatchObject({ status: 'paused', generation: 1 });
    expect(platform.host.asked('pause').slice(-2)).toMatchObject([
      { id, generation: 1 },
      { id, generation: 1 },
    ]);
  });

  it('in which the guest dies ends as an error; one that had slept goes back to that', async () => {
    const id = await platform.createCapsule();
    await post(id, 'pause');
    await post(id, 'resume');
    platform.host.before.pause = async () => {
      await platform.host.crash(id);
      throw new WrennError('capsule_ended', { id, problem: 'The guest crashed.' });
    };
    expect(await post(id, 'pause')).toMatchObject({ status: 410, body: { error: { reason: 'capsule_ended' } } });
    expect(await get(id)).toMatchObject({ status: 'error', status_reason: 'The guest crashed.', generation: 1 });
    expect((await post(id, 'resume')).body).toMatchObject({ status: 'running', status_reason: null });
    expect((await sh(id, 'echo back')).body.stdout).toBe('back\n');
  });
});

describe('a resume', () => {
  it('of a running capsule, or one that never slept, is refused', async () => {
    const id = await platform.createCapsule();
    expect(await post(id, 'resume')).toMatchObject({ status: 409, body: { error: { reason: 'invalid_state' } } });
    await platform.host.crash(id);
    await untilStatus(id, 'error');
    expect(await post(id, 'resume')).toMatchObject({ status: 409, body: { error: { reason: 'invalid_state' } } });
  });

  it('of a damaged capsule says so, leaves it asleep, and can do without its memory', async () => {
    const id = await pausedCapsule();
    platform.host.damage(id);
    await until('it is told', async () => (await get(id)).snapshot_problem === 'memory has another sum');
    const refused = await post(id, 'resume');
    expect(refused).toMatchObject({ status: 409, body: { error: { reason: 'snapshot_damaged' } } });
    expect((await get(id)).status).toBe('paused');

    const verified = verifyResponseSchema.parse((await post(id, 'verify')).body);
    expect(verified).toMatchObject({ capsule_id: id, generation: 1, ok: false });
    expect(verified.files.map(({ problem }) => problem)).toEqual(['memory has another sum', null]);

    const rescued = await post(id, 'resume?memory=discard');
    expect(rescued).toMatchObject({ status: 200, body: { status: 'running', memory: 'discarded' } });
    expect((await sh(id, 'echo up')).body.stdout).toBe('up\n');
  });

  it('of a capsule whose memory fits no host passes that on', async () => {
    const id = await pausedCapsule();
    refuse('resume', new WrennError('snapshot_incompatible', { id, problem: 'another CPU' }));
    expect(await post(id, 'resume')).toMatchObject({
      status: 409,
      body: { error: { reason: 'snapshot_incompatible' } },
    });
    expect((await get(id)).status).toBe('paused');
    expect((await get(id)).snapshot_problem).toContain('another CPU');
  });

  it('on a silent host is refused, and the capsule sleeps on', async () => {
    const id = await pausedCapsule();
    await platform.host.goSilent();
    await until('the host counts as silent', async () => !(await fetch(`${platform.baseUrl}/ready`)).ok);
    expect(await post(id, 'resume')).toMatchObject({ status: 503, body: { error: { reason: 'host_unavailable' } } });
    expect((await get(id)).status).toBe('paused');
    await platform.host.listen();
    await until('the host is back', async () => (await fetch(`${platform.baseUrl}/ready`)).ok);
    expect((await post(id, 'resume')).body.status).toBe('running');
  });

  it('of a capsule that its host no longer has says so, and works when the host has it again', async () => {
    const id = await pausedCapsule();
    const giveBack = platform.host.lose(id);
    expect(await post(id, 'resume')).toMatchObject({ status: 409, body: { error: { reason: 'snapshot_damaged' } } });
    expect((await get(id)).status).toBe('error');
    giveBack();
    expect((await post(id, 'resume')).body).toMatchObject({ status: 'running', snapshot_problem: null });
  });
});

describe('a destroy', () => {
  it.each(['pause', 'resume', 'fork', 'hibernate', 'snapshot'] as const)('in the middle of %s wins', async (verb) => {
    const needsSleep = verb === 'resume' || verb === 'hibernate';
    const id = needsSleep ? await pausedCapsule() : await platform.createCapsule();
    const reached = Promise.withResolvers<void>();
    platform.host.before[verb] = (_request, signal) =>
      new Promise((_, reject) => {
        reached.resolve();
        signal.addEventListener('abort', () => reject(new Error('cancelled')));
      });
    const request = post(id, verb === 'snapshot' ? 'snapshots' : verb, { json: {} });
    await reached.promise;
    expect((await destroy(id)).status).toBe(204);
    expect(await request).toMatchObject({ status: 409, body: { error: { reason: 'invalid_state' } } });
    expect(await statusOf(id)).toBe('stopped');
    expect(platform.host.vmIds()).not.toContain(id);
    const children = (await platform.call('/v1/capsules?status=all')).body.filter(
      ({ forked_from }: { forked_from: string | null }) => forked_from === id,
    );
    expect(children.every(({ status }: { status: string }) => status === 'error')).toBe(true);
  });

  it('of a paused capsule frees what its host has', async () => {
    const id = await pausedCapsule();
    expect((await destroy(id)).status).toBe(204);
    expect(platform.host.vmIds()).not.toContain(id);
  });

  it('of a hibernated capsule removes its objects', async () => {
    const id = await hibernatedCapsule();
    expect(platform.host.objectKeys().filter((key) => key.includes(id))).toHaveLength(1);
    expect((await destroy(id)).status).toBe(204);
    expect(platform.host.objectKeys().filter((key) => key.includes(id))).toEqual([]);
  });

  it('of a hibernated capsule is not held up by an object store that fails', async () => {
    const id = await hibernatedCapsule();
    refuse('deleteHibernated', new WrennError('object_store_failed', { problem: 'down' }));
    expect((await destroy(id)).status).toBe(204);
    expect(platform.host.objectKeys().filter((key) => key.includes(id))).toHaveLength(1);
    platform.host.behave();
    await platform.host.restart();
    await until('the objects are gone', () => !platform.host.objectKeys().some((key) => key.includes(id)));
  });
});

describe('hibernation', () => {
  it('frees the host, and the capsule wakes from the object store', async () => {
    const id = await hibernatedCapsule();
    expect(await get(id)).toMatchObject({ status: 'hibernated', generation: 1, snapshot_bytes: null });
    expect(platform.host.vmIds()).not.toContain(id);
    expect((await post(id, 'verify')).body.error).toMatchObject({ reason: 'invalid_state' });
    expect((await post(id, 'resume')).body).toMatchObject({ status: 'running', generation: 1 });
    expect((await sh(id, 'echo awake')).body.stdout).toBe('awake\n');
    await until('the objects are gone', () => !platform.host.objectKeys().some((key) => key.includes(id)));
    expect((await post(id, 'pause')).body).toMatchObject({ status: 'paused', generation: 2 });
  });

  it('is for paused capsules', async () => {
    const id = await platform.createCapsule();
    expect(await post(id, 'hibernate')).toMatchObject({ status: 409, body: { error: { reason: 'invalid_state' } } });
  });

  it('that the object store refuses leaves the capsule paused and nothing behind', async () => {
    const id = await pausedCapsule();
    platform.host.after.hibernate = async () => {
      throw new WrennError('object_store_failed', { problem: 'other bytes came back' });
    };
    expect(await post(id, 'hibernate')).toMatchObject({
      status: 502,
      body: { error: { reason: 'object_store_failed' } },
    });
    expect((await get(id)).status).toBe('paused');
    expect(platform.host.vmIds()).toContain(id);
    await until('the half is gone', () => !platform.host.objectKeys().some((key) => key.includes(id)));
    platform.host.behave();
    expect((await post(id, 'hibernate')).body.status).toBe('hibernated');
  });

  it("that cannot free the host's copy is completed when the host is back", async () => {
    const id = await pausedCapsule();
    refuse('forget', new WrennError('internal_error'));
    expect((await post(id, 'hibernate')).body.status).toBe('hibernated');
    expect(platform.host.vmIds()).toContain(id);
    platform.host.behave();
    await platform.host.restart();
    await until('the copy is gone', () => !platform.host.vmIds().includes(id));
    expect((await get(id)).status).toBe('hibernated');
    await until('the host is back', async () => (await fetch(`${platform.baseUrl}/ready`)).ok);
    expect((await post(id, 'resume')).body.status).toBe('running');
  });

  it('whose capsule cannot wake leaves it hibernated with its objects', async () => {
    const id = await hibernatedCapsule();
    refuse('resume', new WrennError('object_store_failed', { problem: 'no answer' }));
    expect((await post(id, 'resume')).status).toBe(502);
    expect((await get(id)).status).toBe('hibernated');
    platform.host.behave();
    expect((await post(id, 'resume')).body.status).toBe('running');
  });
});

describe('a control plane that ends in the middle of', () => {
  it.each([
    ['pause', 'running', 'paused'],
    ['resume', 'paused', 'running'],
    ['hibernate', 'paused', 'hibernated'],
    ['forget', 'paused', 'hibernated'],
    ['fork', 'running', 'running'],
    ['snapshot', 'running', 'running'],
  ] as const)('%s leaves it to the next one, which asks for the same', async (verb, from, end) => {
    const id = from === 'paused' ? await pausedCapsule() : await platform.createCapsule();
    const before = platform.host.asked(verb).length;
    const reached = Promise.withResolvers<void>();
    platform.host.after[verb] = () =>
      new Promise(() => {
        reached.resolve();
      });
    const path = { forget: 'hibernate', snapshot: 'snapshots' }[verb as string] ?? verb;
    const request = post(id, path, { json: {} }).catch(() => undefined);
    await reached.promise;
    platform.host.behave();
    await Promise.all([platform.stopControlPlane(), request]);
    await platform.startControlPlane();
    await untilStatus(id, end);
    await until('it was asked again', () => platform.host.asked(verb).length >= before + 2);
    const [first, again] = platform.host.asked(verb).slice(before);
    expect(again).toEqual(first);
    await destroy(id);
  });
});

describe('reconciliation', () => {
  it('takes over that a host paused a capsule of its own accord', async () => {
    const id = await platform.createCapsule();
    await platform.host.pauseUnasked(id);
    await untilStatus(id, 'paused');
    expect(await get(id)).toMatchObject({ generation: 1 });
    expect((await post(id, 'resume')).body.status).toBe('running');
  });

  it('loses no sleeping capsule while its host is silent or loses it for a while', async () => {
    const [kept, lost] = [await pausedCapsule(), await pausedCapsule()];
    await platform.host.goSilent();
    await until('the host counts as silent', async () => !(await fetch(`${platform.baseUrl}/ready`)).ok);
    expect((await get(kept)).status).toBe('paused');
    const giveBack = platform.host.lose(lost);
    await platform.host.listen();
    await untilStatus(lost, 'error');
    expect((await get(lost)).status_reason).toContain('no longer has its snapshot');
    expect((await get(kept)).status).toBe('paused');
    giveBack();
    await platform.host.restart();
    await untilStatus(lost, 'paused');
    await until('the host is back', async () => (await fetch(`${platform.baseUrl}/ready`)).ok);
    expect((await post(lost, 'resume')).body.status).toBe('running');
  });

  it('keeps the generation of a guest that died, until the capsule is destroyed', async () => {
    const id = await pausedCapsule();
    await post(id, 'resume');
    await platform.host.crash(id);
    await untilStatus(id, 'error');
    await platform.host.restart();
    await until('the host is back', async () => (await fetch(`${platform.baseUrl}/ready`)).ok);
    expect(platform.host.vmIds()).toContain(id);
    expect((await post(id, 'resume')).body).toMatchObject({ status: 'running', generation: 1 });
    expect((await destroy(id)).status).toBe(204);
    expect(platform.host.vmIds()).not.toContain(id);
  });

  it.each([
    ['pausing', 'running'],
    ['resuming', 'running'],
    ['forking', 'running'],
    ['stopping', 'stopped'],
    ['pending', 'error'],
  ])('leads a capsule out of %s that no operation works on, to %s', async (status, end) => {
    const id = await platform.createCapsule();
    await using client = await connect(platform.databaseUrl);
    await client.query('UPDATE capsules SET status = $1, version = version + 1 WHERE id = $2', [status, id]);
    await platform.host.restart();
    await untilStatus(id, end);
    await until('its host takes others', async () => (await platform.fetch('/ready')).ok);
  });

  it('hears of a guest that died just when its start was recorded', async () => {
    const id = await pausedCapsule();
    platform.host.after.resume = () => platform.host.crash(id);
    await post(id, 'resume');
    await untilStatus(id, 'error');
  });
});

describe('the timeline', () => {
  it('of a create and a resume holds the steps of both sides, in order', async () => {
    const made = await platform.call('/v1/capsules?trace=1', { json: {} });
    expect(capsuleSchema.parse(made.body).trace?.kind).toBe('create');
    const { id } = made.body;
    expect((await platform.call(`/v1/capsules/${id}`)).body.trace).toBeUndefined();
    await post(id, 'pause');
    const { trace } = capsuleSchema.parse((await post(id, 'resume?trace=1')).body);
    if (!trace) throw new Error('no trace');
    expect(trace.kind).toBe('resume');
    expect(trace.steps.map(({ name, where }) => `${where}: ${name}`)).toEqual([
      'control-plane: place',
      'control-plane: queue',
      'control-plane: host',
      'host: restore',
      'control-plane: record',
    ]);
    const last = trace.steps.at(-1);
    expect((last?.offset_ms ?? 0) + (last?.duration_ms ?? 0)).toBeLessThanOrEqual(trace.duration_ms);
    expect((await platform.call(`/v1/capsules/${id}?trace=1`)).body.trace).toEqual(trace);
  });
});
