import { WrennError } from '@wrenn/protocol/errors';
import { capsuleSchema } from '@wrenn/protocol/rest/capsule';
import { forkResponseSchema } from '@wrenn/protocol/rest/sleep';
import { until } from '@wrenn/testing/until';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
beforeAll(async () => {
  platform = await TestPlatform.start();
});
afterAll(() => platform[Symbol.asyncDispose]());
afterEach(() => platform.host.behave());

const fork = (id: string, json: object, init: object = {}) =>
  platform.call(`/v1/capsules/${id}/fork`, { json, ...init });
const get = async (id: string) => (await platform.call(`/v1/capsules/${id}`)).body;
const destroy = (id: string) => platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE' });
const childrenOf = async (id: string) =>
  (await platform.call('/v1/capsules?status=all')).body.filter(
    ({ forked_from }: { forked_from: string | null }) => forked_from === id,
  );
const tokensAsked = () =>
  platform.host
    .asked('fork')
    .flatMap((request) => (request as { children: { init: { accessToken: string } }[] }).children)
    .map(({ init }) => init.accessToken);

describe('a fork', () => {
  it('makes capsules of their own with the settings of the source, which goes on', async () => {
    const settings = { metadata: { a: '1' }, envs: { SHARED: 'yes' }, timeout_sec: 900, on_timeout: 'destroy' };
    const source = await platform.createCapsule(settings);
    const before = tokensAsked().length;
    const { status, body } = await fork(source, { count: 3 });
    expect(status).toBe(201);
    const { capsules } = forkResponseSchema.parse(body);
    expect(new Set(capsules.map(({ id }) => id)).size).toBe(3);
    for (const child of capsules) {
      expect(child).toMatchObject({
        status: 'running',
        forked_from: source,
        timeout_sec: 900,
        on_timeout: 'destroy',
        generation: 0,
        metadata: { a: '1' },
      });
      const exec = { cmd: 'sh', args: ['-c', 'echo $SHARED'] };
      expect((await platform.call(`/v1/capsules/${child.id}/exec`, { json: exec })).body.stdout).toBe('yes\n');
    }
    expect((await get(source)).status).toBe('running');
    expect(new Set(tokensAsked().slice(before)).size).toBe(3);
    const { body: shown } = await platform.call(`/v1/capsules/${capsules[0]?.id}?trace=1`);
    const { trace } = capsuleSchema.parse(shown);
    expect(trace?.kind).toBe('fork');
    expect(trace?.steps.map(({ name }) => name)).toEqual(expect.arrayContaining(['memory', 'restore', 'record']));
  });

  it('takes other labels for the children', async () => {
    const source = await platform.createCapsule({ metadata: { a: '1' } });
    const { body } = await fork(source, { metadata: { b: '2' } });
    expect(body.capsules).toHaveLength(1);
    expect(body.capsules[0].metadata).toMatchObject({ b: '2' });
    expect(body.capsules[0].metadata.a).toBeUndefined();
  });

  it('is refused for more children than 16, and for a capsule that sleeps', async () => {
    const source = await platform.createCapsule();
    expect(await fork(source, { count: 17 })).toMatchObject({ status: 400 });
    await platform.call(`/v1/capsules/${source}/pause`, { method: 'POST' });
    expect(await fork(source, {})).toMatchObject({ status: 409, body: { error: { reason: 'invalid_state' } } });
  });

  it('answers a repeated request with the same children', async () => {
    const source = await platform.createCapsule();
    const headers = { 'idempotency-key': `fork ${source}` };
    const answers = await Promise.all([1, 2, 3].map(() => fork(source, { count: 2 }, { headers })));
    const ids = answers.map(({ body }) => body.capsules.map(({ id }: { id: string }) => id));
    expect(ids[1]).toEqual(ids[0]);
    expect(ids[2]).toEqual(ids[0]);
    expect(await childrenOf(source)).toHaveLength(2);
    expect((await fork(source, { count: 3 }, { headers })).status).toBe(409);
  });

  it('that its host refuses leaves no child, and the source running', async () => {
    const source = await platform.createCapsule();
    platform.host.after.fork = async () => {
      throw new WrennError('host_disk_full');
    };
    expect(await fork(source, { count: 2 })).toMatchObject({ status: 507 });
    expect((await get(source)).status).toBe('running');
    const children = await childrenOf(source);
    expect(children.map(({ status }: { status: string }) => status)).toEqual(['error', 'error']);
    expect(platform.host.vmIds().filter((id) => children.some((child: { id: string }) => child.id === id))).toEqual([]);
  });

  it('whose host goes away and comes back has the same children', async () => {
    const source = await platform.createCapsule();
    let first = true;
    platform.host.after.fork = async () => {
      if (!first) return;
      first = false;
      void platform.host.restart();
      await new Promise(() => undefined);
    };
    const { status, body } = await fork(source, { count: 2 });
    expect(status).toBe(201);
    expect(await childrenOf(source)).toHaveLength(2);
    for (const { id } of body.capsules) expect(platform.host.vmIds()).toContain(id);
  });

  it('goes on when its client leaves, and a child that is destroyed in its middle stays away', async () => {
    const source = await platform.createCapsule();
    const reached = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    platform.host.before.fork = async () => {
      reached.resolve();
      await release.promise;
    };
    const gone = new AbortController();
    const request = fork(source, { count: 2 }, { signal: gone.signal }).catch(() => 'gone');
    await reached.promise;
    gone.abort();
    expect(await request).toBe('gone');
    const [one, other] = (await childrenOf(source)) as { id: string; status: string }[];
    if (!one || !other) throw new Error('no children');
    expect([one.status, other.status]).toEqual(['starting', 'starting']);
    const ending = destroy(one.id);
    await until('it is being ended', async () => (await get(one.id)).status === 'stopping');
    release.resolve();
    expect((await ending).status).toBe(204);
    await until('the other runs', async () => (await get(other.id)).status === 'running');
    expect(platform.host.vmIds()).toContain(other.id);
    expect(platform.host.vmIds()).not.toContain(one.id);
    expect((await get(source)).status).toBe('running');
  });
});
