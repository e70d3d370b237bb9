import { until } from '@wrenn/testing/until';
import { and, eq } from 'drizzle-orm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { SYSTEM } from '../access/actor.ts';
import { auditLog } from '../database/audit-schema.ts';
import { users } from '../database/people-schema.ts';
import { capsules } from '../database/schema.ts';
import { PLATFORM_TEAM_ID } from '../teams/platform-team.ts';
import { TestPeople, type TestUser } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { setAdmin } from './administrators.ts';

type Person = { user: TestUser; token: string };

let platform: TestPlatform;
let people: TestPeople;
let admin: Person;
beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});
beforeEach(async () => {
  admin = await newPerson({ isAdmin: true });
});

async function newPerson(fields: Partial<typeof users.$inferInsert> = {}): Promise<Person> {
  const user = await people.addUser(fields);
  return { user, token: await people.logIn(user, undefined) };
}

const as = (credential: string, path: string, init: Parameters<TestPlatform['call']>[1] = {}) =>
  platform.call(path, { ...init, headers: { 'x-api-key': credential, ...init.headers } });
const put = (path: string, json: object, who = admin) => as(who.token, `/v1/admin/${path}`, { method: 'PUT', json });
const actsOn = (resourceId: string) =>
  people.db
    .select()
    .from(auditLog)
    .where(and(eq(auditLog.resourceId, resourceId), eq(auditLog.scope, 'platform'), eq(auditLog.status, 'success')));

describe('the administration', () => {
  it('is closed to everybody else, keys of an administrator too', async () => {
    const paths = ['teams', 'users', 'mails', 'capsules'];
    const member = await newPerson();
    const teamId = await people.addTeam([{ user: admin.user, role: 'owner' }]);
    const { key } = await people.addKey(teamId, { userId: admin.user.id });
    for (const path of paths) {
      expect(await as(member.token, `/v1/admin/${path}`), path).toMatchObject({ status: 403 });
      expect(await as(key, `/v1/admin/${path}`), path).toMatchObject({ status: 403 });
      expect(await as(admin.token, `/v1/admin/${path}`), path).toMatchObject({ status: 200 });
    }
    await people.db.update(users).set({ isAdmin: false }).where(eq(users.id, admin.user.id));
    expect(await as(admin.token, '/v1/admin/users')).toMatchObject({ status: 403 });
  });
});

describe('users', () => {
  it('are listed in numbered pages, newest first', async () => {
    const teamId = await people.addTeam([{ user: admin.user, role: 'owner' }]);
    const first = await as(admin.token, '/v1/admin/users?per_page=1');
    expect(first.body).toMatchObject({ page: 1, per_page: 1, total_pages: first.body.total });
    expect(first.body.users).toMatchObject([{ id: admin.user.id, is_admin: true, teams_joined: 1, teams_owned: 1 }]);
    const second = await as(admin.token, '/v1/admin/users?per_page=1&page=2');
    expect(second.body.users[0].id).not.toBe(admin.user.id);
    await put('users/none/active', { active: true });
    expect(await as(admin.token, `/v1/admin/teams/${teamId}`, { method: 'DELETE' })).toMatchObject({ status: 204 });
    expect((await as(admin.token, '/v1/admin/users?per_page=1')).body.users).toMatchObject([{ teams_owned: 0 }]);
    expect(await as(admin.token, '/v1/admin/users?per_page=101')).toMatchObject({ status: 400 });
  });

  it('that are switched off lose every access at once, and their capsules; switched on they log in again', async () => {
    const ada = await newPerson();
    const teamId = await people.addTeam([{ user: ada.user, role: 'owner' }]);
    const own = await people.addKey(teamId, { userId: ada.user.id });
    const made = await people.addKey(teamId, { createdBy: ada.user.id });
    const others = await people.addKey(teamId);
    const created = await as(made.key, '/v1/capsules', { json: {} });
    const socket = await platform.connect(`/v1/capsules/${created.body.id}/pty`, { credential: made.key });
    expect(await put(`users/${ada.user.id}/active`, { active: false })).toMatchObject({ status: 204 });
    const token = await as(ada.token, '/v1/teams');
    expect([
      token.status,
      (await as(own.key, '/v1/capsules')).status,
      (await as(made.key, '/v1/capsules')).status,
    ]).toEqual([401, 401, 401]);
    expect((await as(others.key, '/v1/capsules')).status).toBe(200);
    expect(await socket.closed()).toBe(1008);
    await until('the capsule is destroyed', async () => {
      const [row] = await people.db.select().from(capsules).where(eq(capsules.id, created.body.id));
      return row?.status === 'stopped';
    });
    expect(await put(`users/${ada.user.id}/active`, { active: true })).toMatchObject({ status: 204 });
    const again = await people.logIn(ada.user, teamId);
    expect((await as(again, '/v1/capsules')).status).toBe(200);
    expect((await as(own.key, '/v1/capsules')).status).toBe(401);
    expect((await actsOn(ada.user.id)).map(({ action }) => action).sort()).toEqual(['activate', 'deactivate']);
  });

  it('are administrators as another one says, and somebody always is', async () => {
    const ada = await newPerson();
    expect(await put(`users/${admin.user.id}/active`, { active: false })).toMatchObject({ status: 400 });
    expect(await put(`users/${ada.user.id}/admin`, { admin: true })).toMatchObject({ status: 204 });
    expect((await as(ada.token, '/v1/admin/users')).status).toBe(200);
    expect(await put(`users/${ada.user.id}/admin`, { admin: false })).toMatchObject({ status: 204 });
    expect((await as(ada.token, '/v1/admin/users')).status).toBe(403);
    await people.db.update(users).set({ isAdmin: false });
    await people.db.update(users).set({ isAdmin: true }).where(eq(users.id, admin.user.id));
    expect(await put(`users/${admin.user.id}/admin`, { admin: false })).toMatchObject({
      status: 409,
      body: { error: { reason: 'last_admin' } },
    });
    // Each may take it from the other, and both at once must not leave nobody.
    for (let round = 0; round < 5; round++) {
      await setAdmin(people.db, ada.user.id, true, SYSTEM);
      await people.db.update(users).set({ isAdmin: true, status: 'active' }).where(eq(users.id, admin.user.id));
      const answers = await Promise.all([
        put(`users/${ada.user.id}/admin`, { admin: false }, admin),
        put(`users/${admin.user.id}/admin`, { admin: false }, ada),
      ]);
      expect(answers.map(({ status }) => status).sort()).toEqual([204, 403]);
      const left = await people.db.select().from(users).where(eq(users.isAdmin, true));
      expect(left).toHaveLength(1);
    }
  });

  it('who deleted their account are brought back within the time of grace', async () => {
    const days = (count: number) => new Date(Date.now() - count * 24 * 3_600_000);
    const recent = await people.addUser({ status: 'deleted', deletedAt: days(14) });
    const old = await people.addUser({ status: 'deleted', deletedAt: days(16) });
    const restore = (user: TestUser) => as(admin.token, `/v1/admin/users/${user.id}/restore`, { method: 'POST' });
    expect([(await restore(recent)).status, (await restore(old)).status, (await restore(recent)).status]).toEqual([
      204, 404, 404,
    ]);
    const [row] = await people.db.select().from(users).where(eq(users.id, recent.id));
    expect(row).toMatchObject({ status: 'active', deletedAt: null });
  });
});

describe('teams', () => {
  it('are listed with their owner and what they have, deleted ones too, but not the platform itself', async () => {
    const ada = await newPerson({ name: 'Ada' });
    const teamId = await people.addTeam([{ user: ada.user, role: 'owner' }]);
    const { key } = await people.addKey(teamId);
    await as(key, '/v1/capsules', { json: {} });
    expect((await as(admin.token, '/v1/admin/teams?per_page=1')).body.teams).toMatchObject([
      { id: teamId, owner_name: 'Ada', owner_email: ada.user.email, member_count: 1, active_sandbox_count: 1 },
    ]);
    expect(await put(`teams/${teamId}/byoc`, { enabled: true })).toMatchObject({ status: 204 });
    expect(await put(`teams/${teamId}/byoc`, { enabled: false })).toMatchObject({ status: 400 });
    expect(await as(admin.token, `/v1/admin/teams/${teamId}`, { method: 'DELETE' })).toMatchObject({ status: 204 });
    expect((await as(key, '/v1/capsules')).status).toBe(401);
    const { body } = await as(admin.token, '/v1/admin/teams');
    expect(body.teams[0]).toMatchObject({ id: teamId, is_byoc: true, deleted_at: expect.any(String) });
    expect(body.teams.map((team: { id: string }) => team.id)).not.toContain(PLATFORM_TEAM_ID);
    const foreverThere = `/v1/admin/teams/${PLATFORM_TEAM_ID}`;
    expect(await as(admin.token, foreverThere, { method: 'DELETE' })).toMatchObject({ status: 404 });
    expect((await actsOn(teamId)).map(({ action }) => action).sort()).toEqual(['delete', 'set_byoc']);
  });
});

describe('mails', () => {
  it('that are held are shown with their links, which is recorded', async () => {
    const teamId = await people.addTeam([{ user: admin.user, role: 'owner' }]);
    const email = 'grace@example.com';
    const invited = await as(admin.token, `/v1/teams/${teamId}/invitations`, { json: { email } });
    expect(invited.status).toBe(201);
    const { body } = await as(admin.token, '/v1/admin/mails?status=held&limit=1');
    expect(body.items).toMatchObject([{ to: email, kind: 'invitation', status: 'held' }]);
    expect(body.items[0].link).toContain(`/invite?token=${invited.body.token}`);
    const entries = await people.db
      .select()
      .from(auditLog)
      .where(and(eq(auditLog.action, 'read_links'), eq(auditLog.actorId, admin.user.id)));
    expect(entries).toMatchObject([{ metadata: { mails: [body.items[0].id] } }]);
    await as(admin.token, `/v1/teams/${teamId}/invitations`, { json: { email } });
    const seen = [];
    let cursor: string | null = '';
    while (cursor !== null) {
      const page = await as(admin.token, `/v1/admin/mails?limit=1${cursor && `&cursor=${cursor}`}`);
      seen.push(...page.body.items.map((mail: { id: string }) => mail.id));
      cursor = page.body.next_cursor;
    }
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen.length).toBeGreaterThanOrEqual(2);
  });
});

describe('capsules of the platform', () => {
  it('are the platform’s own, with everything that a team has', async () => {
    const created = await as(admin.token, '/v1/admin/capsules', { json: {} });
    expect(created.status).toBe(201);
    const path = `/v1/admin/capsules/${created.body.id}`;
    expect((await as(admin.token, '/v1/admin/capsules')).body.map((each: { id: string }) => each.id)).toContain(
      created.body.id,
    );
    const ran = await as(admin.token, `${path}/exec`, { json: { cmd: 'echo', args: ['hello'] } });
    expect(ran).toMatchObject({ status: 200, body: { stdout: 'hello\n' } });
    const teamId = await people.addTeam([{ user: admin.user, role: 'owner' }]);
    const { key } = await people.addKey(teamId);
    expect(await as(key, `/v1/capsules/${created.body.id}`)).toMatchObject({ status: 404 });
    const socket = await platform.connect(`${path}/pty`, { credential: admin.token });
    socket.send({ type: 'start', cols: 80, rows: 24 });
    await socket.takeUntil(({ type }) => type === 'started');
    const entriesOf = () => people.db.select().from(auditLog).where(eq(auditLog.resourceId, created.body.id));
    await until('both visits are recorded', async () => {
      const actions = (await entriesOf()).map(({ action }) => action);
      return actions.includes('exec') && actions.includes('pty');
    });
    // Not in the log of the administrator's own team.
    const places = (await entriesOf()).map((entry) => entry.teamId ?? PLATFORM_TEAM_ID);
    expect(new Set(places)).toEqual(new Set([PLATFORM_TEAM_ID]));
    await setAdmin(people.db, (await newPerson()).user.id, true, SYSTEM);
    await setAdmin(people.db, admin.user.id, false, SYSTEM);
    expect(await socket.closed()).toBe(1008);
    expect(await as(admin.token, path)).toMatchObject({ status: 403 });
  });

  it('are kept as templates that every team can use and none can delete', async () => {
    const { body: capsule } = await as(admin.token, '/v1/admin/capsules', { json: {} });
    const kept = await as(admin.token, `/v1/admin/capsules/${capsule.id}/snapshot`, { json: { name: 'tools' } });
    expect(kept).toMatchObject({ status: 201, body: { name: 'tools', platform: true, capsule_id: null } });
    const { key } = await people.addKey(await people.addTeam());
    expect((await as(key, '/v1/snapshots?type=snapshot')).body).toMatchObject([{ name: 'tools', platform: true }]);
    const made = await as(key, '/v1/capsules', { json: { template: 'tools' } });
    expect(made).toMatchObject({ status: 201, body: { status: 'running' } });
    expect(await as(key, '/v1/snapshots/tools', { method: 'DELETE' })).toMatchObject({ status: 403 });
    const own = await as(key, `/v1/capsules/${made.body.id}/snapshots`, { json: { name: 'tools' } });
    expect((await as(key, '/v1/snapshots/tools')).body).toEqual(own.body);
    expect(await as(admin.token, '/v1/admin/snapshots/tools', { method: 'DELETE' })).toMatchObject({ status: 204 });
    expect((await as(key, '/v1/snapshots?type=snapshot')).body).toEqual([own.body]);
  });
});
