import { WrennError } from '@wrenn/protocol/errors';
import { type SnapshotBody, snapshotListSchema, snapshotSchema } from '@wrenn/protocol/rest/sleep';
import { until } from '@wrenn/testing/until';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
beforeAll(async () => {
  platform = await TestPlatform.start();
});
afterAll(() => platform[Symbol.asyncDispose]());
afterEach(() => platform.host.behave());

const snapshotOf = (id: string, json: object = {}, init: object = {}) =>
  platform.call(`/v1/capsules/${id}/snapshots`, { json, ...init });
const remove = (name: string) => platform.fetch(`/v1/snapshots/${name}`, { method: 'DELETE' });
const list = async (query = ''): Promise<SnapshotBody[]> =>
  snapshotListSchema.parse((await platform.call(`/v1/snapshots${query}`)).body);

describe('a snapshot', () => {
  it('is a template that keeps environment and shape', async () => {
    const id = await platform.createCapsule({ memory_mb: 1024, envs: { A: '1', B: '1' } });
    const { status, body } = await snapshotOf(id, { name: 'mine' });
    expect(status).toBe(201);
    expect(snapshotSchema.parse(body)).toMatchObject({
      name: 'mine',
      type: 'snapshot',
      template: 'minimal',
      capsule_id: id,
      memory_mb: 1024,
      size_bytes: 4096,
      platform: false,
    });
    expect((await platform.call(`/v1/capsules/${id}`)).body.status).toBe('running');

    const made = await platform.call('/v1/capsules', { json: { template: 'mine', envs: { B: '2' } } });
    expect(made).toMatchObject({
      status: 201,
      body: { status: 'running', template: 'minimal', snapshot_id: body.id, memory_mb: 1024 },
    });
    expect(platform.host.asked('create').at(-1)).toMatchObject({ snapshotId: body.id, template: 'minimal' });
    const exec = { cmd: 'sh', args: ['-c', 'echo $A $B'] };
    expect((await platform.call(`/v1/capsules/${made.body.id}/exec`, { json: exec })).body.stdout).toBe('1 2\n');
    for (const other of [{ vcpus: 2 }, { memory_mb: 512 }, { disk_mb: 4096 }]) {
      expect(await platform.call('/v1/capsules', { json: { template: 'mine', ...other } })).toMatchObject({
        status: 400,
        body: { error: { reason: 'invalid_shape' } },
      });
    }
  });

  it('is made of a paused capsule too, but of no other', async () => {
    const id = await platform.createCapsule();
    await platform.call(`/v1/capsules/${id}/pause`, { method: 'POST' });
    const { status, body } = await platform.call('/v1/snapshots', { json: { sandbox_id: id } });
    expect(status).toBe(201);
    expect(body.name).toBe(body.id);
    await platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE' });
    expect(await snapshotOf(id)).toMatchObject({ status: 409, body: { error: { reason: 'invalid_state' } } });
    expect(await platform.call('/v1/capsules', { json: { template: body.name } })).toMatchObject({ status: 201 });
    expect(await platform.call('/v1/snapshots', { json: {} })).toMatchObject({ status: 400 });
  });

  it('has a name that nobody else has', async () => {
    const id = await platform.createCapsule();
    expect(await snapshotOf(id, { name: 'minimal' })).toMatchObject({
      status: 409,
      body: { error: { reason: 'name_reserved' } },
    });
    const answers = await Promise.all([1, 2].map(() => snapshotOf(id, { name: 'one' })));
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 409]);
    expect(answers.find(({ status }) => status === 409)?.body.error.reason).toBe('template_name_taken');
    expect((await remove('one')).status).toBe(204);
    expect((await snapshotOf(id, { name: 'one' })).status).toBe(201);
  });

  it('is listed beside the templates of the platform, and shown', async () => {
    const id = await platform.createCapsule();
    const { body } = await snapshotOf(id, { name: 'listed' });
    expect((await list('?type=base')).map(({ name, platform: own }) => [name, own])).toEqual([['minimal', true]]);
    const own = await list('?type=snapshot');
    expect(own[0]?.name).toBe('listed');
    expect(own.every(({ type }) => type === 'snapshot')).toBe(true);
    expect((await list()).length).toBe(own.length + 1);
    for (const name of ['listed', body.id]) {
      expect((await platform.call(`/v1/snapshots/${name}`)).body).toEqual(body);
    }
  });

  it('that was deleted is gone here and on its host, and what was made of it stays', async () => {
    const id = await platform.createCapsule();
    const { body } = await snapshotOf(id, { name: 'doomed' });
    const made = await platform.createCapsule({ template: 'doomed' });
    platform.host.before.deleteSnapshot = async () => {
      throw new WrennError('internal_error');
    };
    expect((await remove('doomed')).status).toBe(204);
    expect((await remove('doomed')).status).toBe(404);
    expect(await platform.call('/v1/capsules', { json: { template: 'doomed' } })).toMatchObject({ status: 404 });
    expect(platform.host.snapshotIds()).toContain(body.id);
    platform.host.behave();
    await platform.host.restart();
    await until('its host has removed it', () => !platform.host.snapshotIds().includes(body.id));
    expect((await platform.call(`/v1/capsules/${made}`)).body.status).toBe('running');
  });

  it('that its host refuses leaves its name free and nothing behind', async () => {
    const id = await platform.createCapsule();
    platform.host.after.snapshot = async () => {
      throw new WrennError('host_disk_full');
    };
    expect(await snapshotOf(id, { name: 'full' })).toMatchObject({ status: 507 });
    await until('nothing is left', async () => (await list()).every(({ name }) => name !== 'full'));
    const kept = (await list()).flatMap((snapshot) => snapshot.id ?? []);
    await until('its host has removed it', () => platform.host.snapshotIds().every((each) => kept.includes(each)));
    platform.host.behave();
    expect((await snapshotOf(id, { name: 'full' })).status).toBe(201);
  });

  it('answers a repeated request with the same snapshot', async () => {
    const id = await platform.createCapsule();
    const headers = { 'idempotency-key': `snapshot ${id}` };
    const answers = await Promise.all([1, 2].map(() => snapshotOf(id, {}, { headers })));
    expect(answers[0]?.body.id).toBe(answers[1]?.body.id);
    expect((await snapshotOf(id, { name: 'other' }, { headers })).status).toBe(409);
  });
});
