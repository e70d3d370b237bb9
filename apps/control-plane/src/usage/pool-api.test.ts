import { poolSchema, type SetPoolRequest } from '@wrenn/protocol/rest/usage';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
let people: TestPeople;
let admin: Record<string, string>;
let teamId: string;
let key: Record<string, string>;

beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
  admin = bearer(await people.logIn(await people.addUser({ isAdmin: true }), undefined));
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});
beforeEach(async () => {
  teamId = await people.addTeam();
  key = { 'x-api-key': (await people.addKey(teamId)).key };
});

afterEach(async () => {
  platform.host.behave();
  // The host is small.
  for (const { id } of await list()) await platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE', headers: key });
});

const NO_LIMITS: SetPoolRequest = { vcpus: null, memory_mb: null, disk_mb: null };
const bearer = (token: string) => ({ authorization: `Bearer ${token}`, 'x-api-key': token });
const setPool = async (limits: Partial<SetPoolRequest>) => {
  const init = { method: 'PUT', json: { ...NO_LIMITS, ...limits }, headers: admin };
  const { status, body } = await platform.call(`/v1/admin/teams/${teamId}/pool`, init);
  expect(status).toBe(200);
  return poolSchema.parse(body);
};
const usedNow = async () =>
  poolSchema.parse((await platform.call(`/v1/teams/${teamId}/pool`, { headers: key })).body).used;
const create = (json: object = {}) => platform.call('/v1/capsules', { json, headers: key });
const act = (id: string, verb: string, json: object = {}) =>
  platform.call(`/v1/capsules/${id}/${verb}`, { json, headers: key });
const list = async () => (await platform.call('/v1/capsules?status=all', { headers: key })).body as { id: string }[];
const refusal = (resource: string, numbers: { limit: number; used: number; asked: number; free: number }) => ({
  status: 409,
  body: { error: { reason: 'pool_exhausted', details: { resource, ...numbers } } },
});

describe('the pool of a team', () => {
  it('has no limits until somebody sets them, and tells what is used', async () => {
    await create({ vcpus: 2, memory_mb: 513 });
    const { body } = await platform.call(`/v1/teams/${teamId}/pool`, { headers: key });
    expect(poolSchema.parse(body)).toEqual({
      team_id: teamId,
      limits: NO_LIMITS,
      used: { vcpus: 2, memory_mb: 513, disk_mb: 1024 },
      updated_at: null,
    });
    const limits = { vcpus: 4, memory_mb: 4096, disk_mb: 8192 };
    expect(await setPool(limits)).toMatchObject({ limits, used: { vcpus: 2, memory_mb: 513, disk_mb: 1024 } });
  });

  it.each([
    ['vcpus', { vcpus: 3 }, { vcpus: 2 }, { limit: 3, used: 2, asked: 2, free: 1 }],
    ['memory_mb', { memory_mb: 1500 }, { memory_mb: 1000 }, { limit: 1500, used: 1000, asked: 1000, free: 500 }],
    ['disk_mb', { disk_mb: 2047 }, {}, { limit: 2047, used: 1024, asked: 1024, free: 1023 }],
  ] as const)(
    'refuses a create that has too little %s left, and says how much',
    async (name, limits, shape, numbers) => {
      await setPool(limits);
      expect((await create(shape)).status).toBe(201);
      const { status, body } = await create(shape);
      expect({ status, body }).toMatchObject(refusal(name, numbers));
      expect(body.error.message).toContain(
        `${numbers.used} of ${numbers.limit} used, ${numbers.asked} asked, ${numbers.free} free`,
      );
      expect(await list()).toHaveLength(1);
    },
  );

  it('is never exceeded by a burst of creates', async () => {
    await setPool({ vcpus: 3 });
    const answers = await Promise.all(Array.from({ length: 10 }, () => create()));
    const statuses = answers.map(({ status }) => status).toSorted();
    expect(statuses).toEqual([...Array(3).fill(201), ...Array(7).fill(409)]);
    expect(await usedNow()).toMatchObject({ vcpus: 3 });
  });

  it('is never exceeded by creates, forks and resumes at once', async () => {
    const source = (await create()).body.id;
    const sleeper = (await create()).body.id;
    await act(sleeper, 'pause');
    await setPool({ memory_mb: 512 * 4 });
    const answers = await Promise.all([
      ...[1, 2, 3].map(() => create()),
      ...[1, 2, 3].map(() => act(source, 'fork', { count: 2 })),
      act(sleeper, 'resume'),
    ]);
    for (const { status, body } of answers) expect([200, 201, 409], JSON.stringify(body)).toContain(status);
    const { memory_mb: memory } = await usedNow();
    expect(memory).toBeLessThanOrEqual(512 * 4);
    expect(memory).toBeGreaterThan(512 * 3);
  });

  it('must have room for all children of a fork, or there is none', async () => {
    const source = (await create()).body.id;
    await setPool({ vcpus: 4 });
    expect(await act(source, 'fork', { count: 4 })).toMatchObject(
      refusal('vcpus', { limit: 4, used: 1, asked: 4, free: 3 }),
    );
    expect(await list()).toHaveLength(1);
    expect((await platform.call(`/v1/capsules/${source}`, { headers: key })).body.status).toBe('running');
    expect((await act(source, 'fork', { count: 3 })).status).toBe(201);
  });

  it('counts half of the memory of each capsule that sleeps, rounded up, and the other half when it wakes', async () => {
    const ids = [];
    for (let n = 0; n < 2; n++) {
      const { body } = await create({ memory_mb: 513, auto_resume: true });
      await act(body.id, 'pause');
      ids.push(body.id);
    }
    expect(await usedNow()).toEqual({ vcpus: 0, memory_mb: 2 * 257, disk_mb: 2048 });
    await setPool({ memory_mb: 2 * 257 + 255 });
    expect(await act(ids[0], 'resume')).toMatchObject(
      refusal('memory_mb', { limit: 769, used: 514, asked: 256, free: 255 }),
    );
    // It wakes by itself where it is used, and is refused there too.
    const exec = await act(ids[0], 'exec', { cmd: 'true' });
    expect(exec).toMatchObject(refusal('memory_mb', { limit: 769, used: 514, asked: 256, free: 255 }));
    await setPool({ memory_mb: 2 * 257 + 256 });
    expect(await act(ids[0], 'resume')).toMatchObject({ status: 200, body: { status: 'running' } });
    expect(await usedNow()).toEqual({ vcpus: 1, memory_mb: 513 + 257, disk_mb: 2048 });
  });

  it('counts a capsule in the object store like one that is paused', async () => {
    const id = (await create()).body.id;
    await act(id, 'pause');
    expect((await act(id, 'hibernate')).status).toBe(200);
    expect(await usedNow()).toEqual({ vcpus: 0, memory_mb: 256, disk_mb: 1024 });
    await setPool({ memory_mb: 511 });
    expect(await act(id, 'resume')).toMatchObject(
      refusal('memory_mb', { limit: 511, used: 256, asked: 256, free: 255 }),
    );
  });

  it('that becomes smaller than what is used ends nothing, and lets nothing start', async () => {
    const id = (await create()).body.id;
    expect(await setPool({ vcpus: 0 })).toMatchObject({ limits: { vcpus: 0 }, used: { vcpus: 1 } });
    expect((await platform.call(`/v1/capsules/${id}`, { headers: key })).body.status).toBe('running');
    expect(await create()).toMatchObject(refusal('vcpus', { limit: 0, used: 1, asked: 1, free: 0 }));
    await setPool({ disk_mb: 10 });
    expect((await act(id, 'pause')).status).toBe(200);
    // What wakes takes no more disk than it did asleep.
    expect((await act(id, 'resume')).status).toBe(200);
  });

  it('is given back by a capsule that ends or fails', async () => {
    await setPool({ vcpus: 1 });
    platform.host.beforeCreate = () => Promise.reject(new Error('a fault'));
    expect((await create()).status).toBeGreaterThanOrEqual(500);
    platform.host.behave();
    const id = (await create()).body.id;
    expect((await create()).status).toBe(409);
    await platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE', headers: key });
    expect((await create()).status).toBe(201);
  });

  it('is set by administrators alone, seen by members and keys of the team, and by nobody else', async () => {
    const { token } = await people.logInNew(teamId, 'owner');
    const member = await people.logInNew(teamId, 'member');
    const read = (headers: Record<string, string>) => platform.fetch(`/v1/teams/${teamId}/pool`, { headers });
    expect((await read(bearer(member.token))).status).toBe(200);
    expect((await read({ 'x-api-key': (await people.addKey(teamId, { scopes: ['metrics:read'] })).key })).status).toBe(
      200,
    );
    expect((await read({ 'x-api-key': (await people.addKey(teamId, { scopes: ['capsules:read'] })).key })).status).toBe(
      403,
    );
    expect((await read({ 'x-api-key': platform.apiKey })).status).toBe(404);
    const put = (headers: Record<string, string>, id = teamId) =>
      platform.call(`/v1/admin/teams/${id}/pool`, { method: 'PUT', json: NO_LIMITS, headers });
    expect((await put(bearer(token))).status).toBe(403);
    expect((await put(key)).status).toBe(403);
    expect((await put(admin, 'team-none')).status).toBe(404);
    const shown = await platform.call(`/v1/admin/teams/${teamId}/pool`, { headers: admin });
    expect(poolSchema.parse(shown.body).team_id).toBe(teamId);
  });
});
