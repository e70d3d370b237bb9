import { setTimeout as delay } from 'node:timers/promises';
import { capsuleSchema } from '@wrenn/protocol/rest/capsule';
import { until } from '@wrenn/testing/until';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
beforeAll(async () => {
  platform = await TestPlatform.start();
});
afterAll(() => platform[Symbol.asyncDispose]());

const statusOf = async (id: string) => (await platform.call(`/v1/capsules/${id}`)).body.status;

describe('capsules', () => {
  it('are created, shown, listed and destroyed', async () => {
    const json = { metadata: { purpose: 'test' }, timeout_sec: 600 };
    const { status, body } = await platform.call('/v1/capsules', { json });
    expect(status).toBe(201);
    expect(capsuleSchema.parse(body)).toMatchObject({
      status: 'running',
      template: 'minimal',
      vcpus: 1,
      memory_mb: 512,
      timeout_sec: 600,
      guest_ip: '169.254.0.21',
      metadata: { purpose: 'test', kernel_version: 'test', envd_version: 'test' },
    });
    const { awake: _awake, ...shown } = (await platform.call(`/v1/capsules/${body.id}`)).body;
    expect(shown).toEqual(body);
    expect((await platform.call('/v1/capsules')).body.map(({ id }: { id: string }) => id)).toContain(body.id);

    expect((await platform.fetch(`/v1/capsules/${body.id}`, { method: 'DELETE' })).status).toBe(204);
    expect((await platform.call('/v1/capsules')).body.map(({ id }: { id: string }) => id)).not.toContain(body.id);
    expect(await statusOf(body.id)).toBe('stopped');
    expect((await platform.fetch(`/v1/capsules/${body.id}`, { method: 'DELETE' })).status).toBe(204);
    expect(platform.host.vmIds()).not.toContain(body.id);
  });

  it('refuse use when they do not run', async () => {
    const id = await platform.createCapsule();
    await platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE' });
    const { status, body } = await platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'true' } });
    expect(status).toBe(409);
    expect(body.error).toMatchObject({ code: 'invalid_state', details: { status: 'stopped' } });
  });
});

describe('the idempotency key', () => {
  it('makes a repeated create answer the first capsule, also at the same instant', async () => {
    const headers = { 'idempotency-key': 'once' };
    const before = platform.host.creates;
    const answers = await Promise.all([1, 2, 3].map(() => platform.call('/v1/capsules', { json: {}, headers })));
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
    expect(platform.host.creates).toBe(before + 1);
    const other = await platform.call('/v1/capsules', { json: { vcpus: 2 }, headers });
    expect(other.status).toBe(409);
  });
});

describe('a create', () => {
  it('goes on when its client disconnects', async () => {
    const release = Promise.withResolvers<void>();
    const reached = Promise.withResolvers<string>();
    platform.host.beforeCreate = async ({ id }) => {
      reached.resolve(id);
      await release.promise;
    };
    const gone = new AbortController();
    const request = platform.fetch('/v1/capsules', { json: {}, signal: gone.signal }).catch(() => undefined);
    const id = await reached.promise;
    expect(await statusOf(id)).toBe('starting');
    gone.abort();
    await request;
    release.resolve();
    await until('it runs', async () => (await statusOf(id)) === 'running');
  });

  it('is stopped by a destroy that comes in its middle', async () => {
    const reached = Promise.withResolvers<string>();
    platform.host.beforeCreate = ({ id }, signal) =>
      new Promise((_, reject) => {
        reached.resolve(id);
        signal.addEventListener('abort', () => reject(new Error('cancelled')));
      });
    const request = platform.call('/v1/capsules', { json: {} });
    const id = await reached.promise;
    platform.host.beforeCreate = async () => undefined;
    expect((await platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE' })).status).toBe(204);
    expect(await request).toMatchObject({ status: 409, body: { error: { code: 'invalid_state' } } });
    expect(await statusOf(id)).toBe('stopped');
  });

  it('that fails ends as an error with a reason', async () => {
    const { WrennError } = await import('@wrenn/protocol/errors');
    let id = '';
    platform.host.beforeCreate = async (request) => {
      id = request.id;
      throw new WrennError('host_disk_full');
    };
    const { status, body } = await platform.call('/v1/capsules', { json: {} });
    platform.host.beforeCreate = async () => undefined;
    expect(status).toBe(507);
    expect(body.error.reason).toBe('host_disk_full');
    const { body: capsule } = await platform.call(`/v1/capsules/${id}`);
    expect(capsule).toMatchObject({ status: 'error', status_reason: 'The disk of the host is full.' });
  });

  it('is asked again when the host went away and came back', async () => {
    let first = true;
    platform.host.beforeCreate = async () => {
      if (!first) return;
      first = false;
      await platform.host.goSilent();
      await platform.host.listen();
    };
    const { status, body } = await platform.call('/v1/capsules', { json: {} });
    platform.host.beforeCreate = async () => undefined;
    expect(status).toBe(201);
    expect(platform.host.vmIds()).toContain(body.id);
  });

  it('is gone on with by the next control plane', async () => {
    const reached = Promise.withResolvers<string>();
    platform.host.beforeCreate = ({ id }, signal) =>
      new Promise((_, reject) => {
        reached.resolve(id);
        signal.addEventListener('abort', () => reject(new Error('cancelled')));
      });
    const request = platform.call('/v1/capsules', { json: {} }).catch(() => undefined);
    const id = await reached.promise;
    platform.host.beforeCreate = async () => undefined;
    await Promise.all([platform.stopControlPlane(), request]);
    expect(platform.host.vmIds()).not.toContain(id);
    await platform.startControlPlane();
    await until('it runs', async () => (await statusOf(id)) === 'running');
    expect((await platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'echo', args: ['hi'] } })).body.stdout).toBe(
      'hi\n',
    );
  });

  it('takes no body for "all defaults"', async () => {
    const { status, body } = await platform.call('/v1/capsules', { method: 'POST' });
    expect([status, body.template, body.vcpus, body.memory_mb]).toEqual([201, 'minimal', 1, 512]);
  });

  it.each([
    [{ template: 'nowhere' }, 404, 'template_not_found'],
    [{ vcpus: 999 }, 400, 'invalid_shape'],
    [{ memory_mb: 9_000_000 }, 400, 'invalid_shape'],
    [{ vcpus: 'two' }, 400, 'invalid_request'],
    [{ timeout_sec: -1 }, 400, 'invalid_request'],
  ])('of %j is refused', async (json, status, reason) => {
    const answer = await platform.call('/v1/capsules', { json });
    expect(answer).toMatchObject({ status, body: { error: { reason } } });
    expect(answer.body.error.remedy).not.toBe('');
  });
});

describe('reconciliation', () => {
  it('tells of a guest that died, keeps its console and leaves nothing on the host', async () => {
    const id = await platform.createCapsule();
    await platform.host.crash(id);
    await until('it is an error', async () => (await statusOf(id)) === 'error');
    expect((await platform.call(`/v1/capsules/${id}`)).body.status_reason).toBe('The guest crashed.');
    expect(await (await platform.fetch(`/v1/capsules/${id}/logs`)).text()).toBe(`console of ${id}`);
    await until('the host has forgotten it', () => !platform.host.vmIds().includes(id));
    expect((await platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE' })).status).toBe(204);
  });

  it('marks capsules of a silent host missing, and running when it is back', async () => {
    const id = await platform.createCapsule();
    await platform.host.goSilent();
    await until('it is missing', async () => (await statusOf(id)) === 'missing');
    const { status, body } = await platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'true' } });
    expect([status, body.error.reason]).toEqual([503, 'host_unavailable']);
    expect((await platform.call('/v1/capsules', { json: {} })).body.error.reason).toBe('no_hosts_available');
    expect((await fetch(`${platform.baseUrl}/ready`)).status).toBe(503);
    await platform.host.listen();
    await until('it runs again', async () => (await statusOf(id)) === 'running');
    expect((await platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'true' } })).body.exit_code).toBe(0);
  });

  it('leaves what runs alone while comparing the rest takes longer than a host may be silent', async () => {
    const [first, second] = [await platform.createCapsule(), await platform.createCapsule()];
    await platform.host.goSilent();
    await until('both are missing', async () => {
      const states = [await statusOf(first), await statusOf(second)];
      return states.every((state) => state === 'missing');
    });
    await using client = Object.assign(new Client(platform.databaseUrl), { [Symbol.asyncDispose]: () => client.end() });
    await client.connect();
    await client.query('BEGIN');
    await client.query('SELECT 1 FROM capsules WHERE id = $1 FOR UPDATE', [second]);
    await platform.host.listen();
    await until('the first runs again', async () => (await statusOf(first)) === 'running');
    // Five times as long as the host may be silent.
    await delay(1500);
    expect([await statusOf(first), await statusOf(second)]).toEqual(['running', 'missing']);
    await client.query('COMMIT');
    await until('the second runs again', async () => (await statusOf(second)) === 'running');
    expect(await statusOf(first)).toBe('running');
  });

  it('removes a microVM whose capsule has ended, and reports one that its host lost', async () => {
    const [ended, lost] = [await platform.createCapsule(), await platform.createCapsule()];
    await platform.host.goSilent();
    const deletion = platform.fetch(`/v1/capsules/${ended}`, { method: 'DELETE' });
    await until('it is being ended', async () => (await statusOf(ended)) === 'stopping');
    await platform.host.forget(lost);
    await platform.host.listen();
    expect((await deletion).status).toBe(204);
    await until('the loss is told', async () => (await statusOf(lost)) === 'error');
    expect(platform.host.vmIds()).not.toContain(ended);
  });
});
