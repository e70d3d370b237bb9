import { newId } from '@wrenn/protocol/ids';
import { until } from '@wrenn/testing/until';
import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import { channels } from '../database/channel-schema.ts';
import { capsules, snapshots } from '../database/schema.ts';
import { TestPeople, type TestUser } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

interface Owned {
  readonly id: string;
  readonly owner: TestUser;
  /** For the team. */
  readonly token: string;
  readonly key: string;
}

let platform: TestPlatform;
let people: TestPeople;
beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

const as = (credential: string, path: string, init: Parameters<TestPlatform['call']>[1] = {}) =>
  platform.call(path, { ...init, headers: { 'x-api-key': credential } });

async function newTeam(): Promise<Owned> {
  const owner = await people.addUser();
  const id = await people.addTeam([{ user: owner, role: 'owner' }]);
  const { key } = await people.addKey(id);
  return { id, owner, key, token: await people.logIn(owner, id) };
}

async function create({ key }: Owned): Promise<string> {
  const { status, body } = await as(key, '/v1/capsules', { json: {} });
  expect(status).toBe(201);
  return body.id;
}

const remove = ({ id, token }: Owned) => as(token, `/v1/teams/${id}`, { method: 'DELETE' });
const capsulesOf = ({ id }: Owned) => people.db.select().from(capsules).where(eq(capsules.teamId, id));
const snapshotsOf = ({ id }: Owned) => people.db.select().from(snapshots).where(eq(snapshots.teamId, id));
const isCleared = async (team: Owned) =>
  (await capsulesOf(team)).every(({ status }) => status === 'stopped') && (await snapshotsOf(team)).length === 0;

describe('deleting a team', () => {
  it('ends every access at once, and then destroys what it has, in whatever state', async () => {
    const team = await newTeam();
    const [running, paused, broken] = [await create(team), await create(team), await create(team)];
    expect((await as(team.key, `/v1/capsules/${paused}/pause`, { method: 'POST' })).status).toBe(200);
    await people.db.update(capsules).set({ status: 'error' }).where(eq(capsules.id, broken));
    expect((await as(team.key, `/v1/capsules/${running}/snapshots`, { json: { name: 'kept' } })).status).toBe(201);
    const member = await people.logInNew(team.id, 'member');
    await people.db.insert(channels).values({
      ...{
        id: newId('ch'),
        teamId: team.id,
        name: 'hook',
        provider: 'webhook',
        config: {},
        events: ['capsule.destroyed'],
      },
    });
    const socket = await platform.connect(`/v1/capsules/${running}/pty`, { credential: team.key });
    expect(await as(member.token, `/v1/teams/${team.id}`, { method: 'DELETE' })).toMatchObject({ status: 403 });
    expect(await remove(team)).toMatchObject({ status: 204 });

    expect(await as(team.key, '/v1/capsules')).toMatchObject({ status: 401 });
    for (const token of [team.token, member.token]) {
      expect(await as(token, '/v1/capsules')).toMatchObject({ status: 403, body: { error: { code: 'no_team' } } });
      expect(await as(token, `/v1/teams/${team.id}`)).toMatchObject({ status: 404 });
      expect((await as(token, '/v1/teams')).body).toEqual([]);
    }
    expect(await remove(team)).toMatchObject({ status: 404 });
    expect(await socket.closed()).toBe(1008);
    await until('nothing is left of it', async () => {
      const left = await people.db.select().from(channels).where(eq(channels.teamId, team.id));
      return left.length === 0 && (await isCleared(team));
    });
    const entries = await people.db.select().from(auditLog).where(eq(auditLog.resourceId, team.id));
    expect(entries).toContainEqual(
      expect.objectContaining({ action: 'delete', actorId: team.owner.id, teamId: team.id }),
    );
  });

  it('catches capsules that are created, and keys that are made, at that instant', async () => {
    let refused = 0;
    for (let round = 0; round < 6 || (refused === 0 && round < 30); round++) {
      const team = await newTeam();
      const [removed, key, ...created] = await Promise.all([
        remove(team),
        as(team.token, '/v1/api-keys', { json: {} }),
        ...Array.from({ length: 4 }, () => as(team.key, '/v1/capsules', { json: {} })),
      ]);
      expect(removed.status).toBe(204);
      refused += created.filter(({ status }) => [401, 404].includes(status)).length;
      await until('nothing is left of it', () => isCleared(team));
      if (key.status === 201) expect(await as(key.body.key, '/v1/capsules')).toMatchObject({ status: 401 });
    }
    // Else every create was before the deletion, and this shows nothing.
    expect(refused).toBeGreaterThan(0);
  }, 120_000);

  it('goes on after the control plane stopped in the middle', async () => {
    const team = await newTeam();
    for (let n = 0; n < 3; n++) await create(team);
    expect(await remove(team)).toMatchObject({ status: 204 });
    await platform.stopControlPlane();
    await platform.startControlPlane();
    await until('nothing is left of it', () => isCleared(team));
  }, 120_000);
});
