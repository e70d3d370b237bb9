import { newId } from '@wrenn/protocol/ids';
import { and, eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import { channels, events } from '../database/channel-schema.ts';
import { apiKeys, teamMembers, teams, users } from '../database/people-schema.ts';
import { untilBlocked } from '../testing/blocked.ts';
import { TestPeople, type TestUser } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { createKey } from './keys.ts';

let platform: TestPlatform;
let people: TestPeople;
let teamId: string;
let owner: { user: TestUser; token: string };
let member: { user: TestUser; token: string };
let other: { user: TestUser; token: string };
beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
  teamId = await people.addTeam();
  owner = await people.logInNew(teamId, 'owner');
  member = await people.logInNew(teamId, 'member');
  other = await people.logInNew(teamId, 'member');
  // Wants events, and gets none while this runs.
  await people.db.insert(channels).values({
    id: newId('ch'),
    teamId,
    name: 'wants-keys',
    provider: 'webhook',
    config: {},
    events: ['api_key.created', 'api_key.revoked'],
    heldUntil: new Date(Date.now() + 3_600_000),
  });
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

const as = (credential: string, path: string, init: Parameters<TestPlatform['call']>[1] = {}) =>
  platform.call(path, { ...init, headers: { 'x-api-key': credential } });
const make = (token: string, json: object) => as(token, '/v1/api-keys', { json });
const statusOf = async (key: string) => (await as(key, '/v1/capsules')).status;

describe('a new key', () => {
  it('is shown once, kept as a hash, and told of in the audit log and to channels', async () => {
    const { status, body } = await make(owner.token, { name: ' ci ', scopes: ['capsules:read'], expires_in_days: 3 });
    expect(status).toBe(201);
    expect(body).toMatchObject({
      name: 'ci',
      team_id: teamId,
      owner: 'team',
      user_id: null,
      scopes: ['capsules:read'],
      created_by: owner.user.id,
      creator_email: owner.user.email,
      last_used: null,
      key: expect.stringMatching(/^wrn_[0-9a-f]{40}$/),
    });
    expect(Date.parse(body.expires_at) - Date.parse(body.created_at)).toBeCloseTo(3 * 24 * 3600 * 1000, -4);
    const { key, ...known } = body;
    expect(key.startsWith(body.key_prefix)).toBe(true);
    expect((await as(owner.token, `/v1/api-keys/${body.id}`)).body).toEqual(known);
    expect((await as(owner.token, '/v1/api-keys')).body).toContainEqual(known);
    const kept = {
      keys: await people.db.select().from(apiKeys).where(eq(apiKeys.id, body.id)),
      audit: await people.db.select().from(auditLog).where(eq(auditLog.resourceId, body.id)),
      events: await people.db.select().from(events).where(eq(events.resourceId, body.id)),
    };
    expect(JSON.stringify(kept)).not.toContain(key.slice(10));
    expect(kept.audit).toMatchObject([{ action: 'create', scope: 'team', actorId: owner.user.id, teamId }]);
    expect(kept.events).toMatchObject([{ type: 'api_key.created', teamId }]);
  });

  it('has defaults, by the role of who makes it', async () => {
    const team = await make(owner.token, {});
    expect(team.body).toMatchObject({ owner: 'team', scopes: null, expires_at: null, name: 'Unnamed API Key' });
    const own = await make(member.token, {});
    expect(own.body).toMatchObject({ owner: 'user', user_id: member.user.id });
    expect([await statusOf(team.body.key), await statusOf(own.body.key)]).toEqual([200, 200]);
  });

  it.each([
    [{ name: '' }, 400],
    [{ name: 'x'.repeat(101) }, 400],
    [{ name: 'a\0b' }, 400],
    [{ scopes: [] }, 400],
    [{ scopes: ['everything'] }, 400],
    [{ expires_in_days: 0 }, 400],
    [{ owner: 'user' }, 201],
  ])('of %j is answered %i', async (json, status) => {
    expect((await make(owner.token, json)).status).toBe(status);
  });

  it('of the team is refused to members, and every key to who has none but a key', async () => {
    expect((await make(member.token, { owner: 'team' })).body.error).toMatchObject({ reason: 'insufficient_role' });
    const { key } = await people.addKey(teamId);
    expect((await make(key, {})).body.error).toMatchObject({ reason: 'login_required' });
  });
});

describe('a key whose maker, since the request came,', () => {
  it('was switched off is not made', async () => {
    const leaving = await people.logInNew(teamId, 'admin');
    const { answer } = await people.db.transaction(async (tx) => {
      await tx.update(users).set({ status: 'disabled' }).where(eq(users.id, leaving.user.id));
      const begun = make(leaving.token, {});
      await untilBlocked(people.db);
      return { answer: begun };
    });
    expect((await answer).body.error).toMatchObject({ reason: 'account_deactivated' });
    expect(await people.db.select().from(apiKeys).where(eq(apiKeys.createdBy, leaving.user.id))).toEqual([]);
  });

  it.each([
    ['was removed from the team', undefined, 'not_found'],
    ['may not manage keys any more', 'member', 'insufficient_role'],
  ] as const)('%s is not made', async (_what, role, code) => {
    const { user } = await people.logInNew(teamId, 'admin');
    const before = {
      type: 'user',
      ...user,
      sessionId: 'ses-test',
      isAdmin: false,
      team: { id: teamId, role: 'admin' },
    } as const;
    const keeper = { user: before, teamId, actor: { type: 'user', id: user.id, name: user.name } } as const;
    const mine = and(eq(teamMembers.teamId, teamId), eq(teamMembers.userId, user.id));
    await (role ? people.db.update(teamMembers).set({ role }).where(mine) : people.db.delete(teamMembers).where(mine));
    const request = { name: 'late', owner: 'team', scopes: null, expires_in_days: null } as const;
    await expect(createKey(people.db, keeper, request)).rejects.toMatchObject({ code });
  });
});

describe('keys of others', () => {
  it('are not there for members, and can be managed by admins', async () => {
    const { body: own } = await make(member.token, {});
    const { id: ofTeam } = await people.addKey(teamId);
    const idsFor = async (token: string) =>
      (await as(token, '/v1/api-keys')).body.map(({ id }: { id: string }) => id) as string[];
    expect(await idsFor(other.token)).not.toContain(own.id);
    expect(await idsFor(member.token)).toContain(own.id);
    expect(await idsFor(member.token)).not.toContain(ofTeam);
    expect(await idsFor(owner.token)).toEqual(expect.arrayContaining([own.id, ofTeam]));
    const stranger = await people.logInNew(await people.addTeam(), 'owner');
    for (const token of [other.token, stranger.token]) {
      for (const init of [{}, { method: 'PATCH', json: { name: 'mine' } }, { method: 'DELETE' }]) {
        expect((await as(token, `/v1/api-keys/${own.id}`, init)).status).toBe(404);
      }
    }
    expect((await as(owner.token, `/v1/api-keys/${own.id}`, { method: 'DELETE' })).status).toBe(204);
    expect(await statusOf(own.key)).toBe(401);
  });
});

it('renames a key', async () => {
  const { body } = await make(member.token, { name: 'before' });
  const renamed = await as(member.token, `/v1/api-keys/${body.id}`, { method: 'PATCH', json: { name: 'after' } });
  expect(renamed.body).toMatchObject({ id: body.id, name: 'after' });
  expect(renamed.body.key).toBeUndefined();
});

describe('access by a key', () => {
  it('ends with the next request after it was revoked, on every control plane', async () => {
    await using second = await platform.startAnother();
    const { body } = await make(owner.token, {});
    const everywhere = () =>
      Promise.all(
        [platform.baseUrl, `http://127.0.0.1:${second.port}`].map(
          async (url) => (await fetch(`${url}/v1/capsules`, { headers: { 'x-api-key': body.key } })).status,
        ),
      );
    expect(await everywhere()).toEqual([200, 200]);
    expect((await as(owner.token, `/v1/api-keys/${body.id}`, { method: 'DELETE' })).status).toBe(204);
    expect(await everywhere()).toEqual([401, 401]);
    expect((await as(owner.token, `/v1/api-keys/${body.id}`, { method: 'DELETE' })).status).toBe(404);
    expect((await as(owner.token, `/v1/api-keys/${body.id}`)).status).toBe(404);
    expect(await people.db.select().from(events).where(eq(events.resourceId, body.id))).toHaveLength(2);
  });

  it("ends with its person's membership or account, with its time, and with its team", async () => {
    const leaving = await people.logInNew(teamId, 'member');
    const disabled = await people.logInNew(teamId, 'member');
    const keys = {
      leaving: await people.addKey(teamId, { userId: leaving.user.id }),
      disabled: await people.addKey(teamId, { userId: disabled.user.id }),
      late: await people.addKey(teamId),
    };
    for (const { key } of Object.values(keys)) expect(await statusOf(key)).toBe(200);
    await people.db.delete(teamMembers).where(eq(teamMembers.userId, leaving.user.id));
    await people.db.update(users).set({ status: 'disabled' }).where(eq(users.id, disabled.user.id));
    await people.db
      .update(apiKeys)
      .set({ expiresAt: new Date(Date.now() - 1) })
      .where(eq(apiKeys.id, keys.late.id));
    for (const { key } of Object.values(keys)) expect(await statusOf(key)).toBe(401);

    const gone = await people.addTeam();
    const { key } = await people.addKey(gone);
    expect(await statusOf(key)).toBe(200);
    await people.db.update(teams).set({ deletedAt: new Date() }).where(eq(teams.id, gone));
    expect(await statusOf(key)).toBe(401);
  });

  it('closes the WebSockets that the key opened when it is revoked', async () => {
    const { body } = await make(owner.token, {});
    const { body: capsule } = await as(body.key, '/v1/capsules', { json: {} });
    const before = platform.apiKey;
    platform.apiKey = body.key;
    const socket = await platform.connect(`/v1/capsules/${capsule.id}/exec/stream`);
    platform.apiKey = before;
    socket.send({ type: 'start', cmd: 'cat', stdin: true });
    expect(await socket.next()).toMatchObject({ type: 'start' });
    expect((await as(owner.token, `/v1/api-keys/${body.id}`, { method: 'DELETE' })).status).toBe(204);
    expect(await socket.closed()).toBe(1008);
  });

  it('reaches as far as its scopes, and no further than its person', async () => {
    const { key } = await people.addKey(teamId, { scopes: ['capsules:read'] });
    expect(await statusOf(key)).toBe(200);
    expect((await as(key, '/v1/capsules', { json: {} })).body.error).toMatchObject({ reason: 'insufficient_scope' });
    expect((await as(key.replace('wrn_', 'e2b_'), '/v1/capsules')).status).toBe(200);
  });
});
