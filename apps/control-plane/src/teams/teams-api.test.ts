import { startStopwatch } from '@wrenn/testing/stopwatch';
import { and, eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import { mails } from '../database/mail-schema.ts';
import { teamMembers } from '../database/people-schema.ts';
import { TestPeople, type TestUser } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { pickTeam } from './teams.ts';

type Person = { user: TestUser; token: string };

let platform: TestPlatform;
let people: TestPeople;
beforeAll(async () => {
  // A second control plane counts none as silent that it has not met yet.
  platform = await TestPlatform.start({}, { hostSilenceMs: 15_000 });
  people = await TestPeople.of(platform);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

/** A request as a person, or as nobody. */
const as = (person: Person | undefined, path: string, init: Parameters<TestPlatform['call']>[1] = {}) =>
  platform.call(path, { ...init, headers: { 'x-api-key': person?.token ?? '', ...init.headers } });

async function newPerson(name = 'Ada'): Promise<Person> {
  const user = await people.addUser({ name });
  return { user, token: await people.logIn(user, undefined) };
}

async function newTeam(owner: Person, name = 'Engines'): Promise<string> {
  const { status, body } = await as(owner, '/v1/teams', { json: { name } });
  expect(status).toBe(201);
  return body.id;
}

async function join(owner: Person, teamId: string, person: Person, role = 'member'): Promise<void> {
  const made = await as(owner, `/v1/teams/${teamId}/invitations`, { json: { role } });
  expect(made.status).toBe(201);
  const accepted = await as(person, '/v1/invitations/accept', { json: { token: made.body.token } });
  expect(accepted).toMatchObject({ status: 200, body: { id: teamId, role } });
}

const auditOf = (teamId: string, resourceType: string, action: string) =>
  people.db
    .select()
    .from(auditLog)
    .where(and(eq(auditLog.teamId, teamId), eq(auditLog.resourceType, resourceType), eq(auditLog.action, action)));

describe('a person without a team', () => {
  it('can list and make teams, and is told what lacks for the rest', async () => {
    const ada = await newPerson();
    expect((await as(ada, '/v1/teams')).body).toEqual([]);
    expect(await as(ada, '/v1/capsules')).toMatchObject({ status: 403, body: { error: { code: 'no_team' } } });
    expect(await pickTeam(people.db, ada.user.id)).toBeUndefined();
    const id = await newTeam(ada);
    expect((await as(ada, '/v1/teams')).body).toMatchObject([{ id, name: 'Engines', role: 'owner', is_default: true }]);
    expect(await pickTeam(people.db, ada.user.id)).toEqual({ id, role: 'owner' });
    expect(await auditOf(id, 'team', 'create')).toMatchObject([{ actorId: ada.user.id, scope: 'team' }]);
    const [mail] = await people.db.select().from(mails).where(eq(mails.toAddress, ada.user.email));
    expect(mail).toMatchObject({ kind: 'team_created', status: 'held' });
  });

  it.each(['', ' ', 'a/b', 'x'.repeat(129), 'tab\there', '<b>'])('cannot name one %j', async (name) => {
    expect(await as(await newPerson(), '/v1/teams', { json: { name } })).toMatchObject({ status: 400 });
  });
});

describe('a team', () => {
  let owner: Person;
  let admin: Person;
  let member: Person;
  let stranger: Person;
  let id: string;
  beforeAll(async () => {
    [owner, admin, member, stranger] = [
      await newPerson('Olga'),
      await newPerson('Adam'),
      await newPerson('Mia'),
      await newPerson('Sam'),
    ];
    id = await newTeam(owner);
    await join(owner, id, admin, 'admin');
    await join(owner, id, member);
  });

  it('shows its members to members, whichever team their token is for, and to nobody else', async () => {
    const detail = await as(member, `/v1/teams/${id}`);
    expect(detail.body.team).toMatchObject({ id, role: 'member' });
    expect(detail.body.members.map((each: { role: string; name: string }) => [each.name, each.role])).toEqual([
      ['Olga', 'owner'],
      ['Adam', 'admin'],
      ['Mia', 'member'],
    ]);
    expect((await as(member, `/v1/teams/${id}/members`)).body).toEqual(detail.body.members);
    for (const path of [`/v1/teams/${id}`, `/v1/teams/${id}/members`, '/v1/teams/team-0000000000000000000000000'])
      expect(await as(stranger, path), path).toMatchObject({ status: 404 });
    const { key } = await people.addKey(id);
    expect(await platform.call(`/v1/teams/${id}`, { headers: { 'x-api-key': key } })).toMatchObject({
      status: 403,
      body: { error: { reason: 'login_required' } },
    });
  });

  it('is renamed by managers only', async () => {
    const rename = (person: Person, name: string) => as(person, `/v1/teams/${id}`, { method: 'PATCH', json: { name } });
    expect(await rename(member, 'Mine')).toMatchObject({
      status: 403,
      body: { error: { reason: 'insufficient_role' } },
    });
    expect(await rename(admin, "Ada's Engines")).toMatchObject({ status: 204 });
    expect((await as(owner, `/v1/teams/${id}`)).body.team.name).toBe("Ada's Engines");
    expect(await auditOf(id, 'team', 'rename')).toMatchObject([{ metadata: { before: 'Engines' } }]);
  });

  it('keeps its owner: no other role, no removal, no leaving', async () => {
    const path = `/v1/teams/${id}/members/${owner.user.id}`;
    const refused = { status: 409, body: { error: { reason: 'owner_immutable' } } };
    expect(await as(admin, path, { method: 'PATCH', json: { role: 'member' } })).toMatchObject(refused);
    expect(await as(admin, path, { method: 'DELETE' })).toMatchObject(refused);
    expect(await as(owner, `/v1/teams/${id}/leave`, { method: 'POST' })).toMatchObject(refused);
    expect(await as(admin, path, { method: 'PATCH', json: { role: 'owner' } })).toMatchObject({ status: 400 });
  });

  it('is passed on to a member, and the owner becomes an admin', async () => {
    const transfer = (from: Person, to: Person) =>
      as(from, `/v1/teams/${id}/transfer`, { json: { user_id: to.user.id } });
    expect(await transfer(admin, member)).toMatchObject({ status: 403 });
    expect(await transfer(owner, stranger)).toMatchObject({ status: 404 });
    expect(await transfer(owner, owner)).toMatchObject({ status: 400 });
    expect(await transfer(owner, member)).toMatchObject({ status: 204 });
    expect((await as(member, `/v1/teams/${id}`)).body.team.role).toBe('owner');
    expect((await as(owner, `/v1/teams/${id}`)).body.team.role).toBe('admin');
    expect(await transfer(member, owner)).toMatchObject({ status: 204 });
    expect(await auditOf(id, 'team', 'transfer')).toHaveLength(2);
  });

  it('becomes the default of a member who says so', async () => {
    const second = await newTeam(member, 'Second');
    expect((await as(member, '/v1/teams')).body.map((team: { id: string }) => team.id)).toEqual([id, second]);
    expect(await as(member, `/v1/teams/${second}/default`, { method: 'POST' })).toMatchObject({ status: 204 });
    expect(await pickTeam(people.db, member.user.id)).toEqual({ id: second, role: 'owner' });
    await Promise.all(
      [id, second, id, second].map((each) => as(member, `/v1/teams/${each}/default`, { method: 'POST' })),
    );
    const defaults = await people.db
      .select()
      .from(teamMembers)
      .where(and(eq(teamMembers.userId, member.user.id), eq(teamMembers.isDefault, true)));
    expect(defaults).toHaveLength(1);
    expect(await as(stranger, `/v1/teams/${id}/default`, { method: 'POST' })).toMatchObject({ status: 404 });
  });
});

describe('adding somebody by their address', () => {
  it('answers alike for an account and for nobody, and both are invited', async () => {
    const owner = await newPerson();
    const stranger = await newPerson();
    const id = await newTeam(owner);
    const add = (email: string) => as(owner, `/v1/teams/${id}/members`, { json: { email } });
    const [known, unknown] = [await add(stranger.user.email), await add('nobody@example.com')];
    const shape = (answer: typeof known) => ({
      ...answer,
      body: { ...answer.body, email: '', name: '', invitation_id: typeof answer.body.invitation_id },
    });
    expect(shape(known)).toEqual(shape(unknown));
    expect(known).toMatchObject({ status: 201, body: { status: 'invited', user_id: null, role: 'member' } });
    expect((await as(owner, `/v1/teams/${id}/members`)).body).toHaveLength(1);
    const [mail] = await people.db.select().from(mails).where(eq(mails.toAddress, 'nobody@example.com'));
    expect(mail).toMatchObject({ kind: 'invitation' });
    expect((await as(owner, `/v1/users/search?email=${stranger.user.email}`)).body).toEqual([]);
  });

  it('brings in at once whom one knows from another team', async () => {
    const owner = await newPerson();
    const friend = await newPerson('Grace');
    const [first, second] = [await newTeam(owner), await newTeam(owner)];
    await join(owner, first, friend);
    const email = friend.user.email.toUpperCase();
    expect((await as(owner, `/v1/users/search?email=${email}`)).body).toMatchObject([{ user_id: friend.user.id }]);
    const add = () => as(owner, `/v1/teams/${second}/members`, { json: { email, role: 'admin' } });
    expect(await add()).toMatchObject({
      status: 201,
      body: { status: 'member', user_id: friend.user.id, name: 'Grace', role: 'admin' },
    });
    expect(await add()).toMatchObject({ status: 409 });
    expect(await auditOf(second, 'member', 'add')).toMatchObject([{ resourceId: friend.user.id, scope: 'admin' }]);
  });

  it('is limited, so that nobody floods an address or finds out much', async () => {
    const owner = await newPerson();
    const id = await newTeam(owner);
    const add = () => as(owner, `/v1/teams/${id}/members`, { json: { email: 'flooded@example.com' } });
    const statuses = [];
    for (let n = 0; n < 6; n++) statuses.push((await add()).status);
    expect(statuses).toEqual([201, 201, 201, 201, 201, 429]);
    expect((await as(owner, `/v1/teams/${id}/invitations`)).body).toHaveLength(1);
  });
});

describe('a membership that ends', () => {
  it.each(['removal', 'leaving'])('by %s ends every access at the next request', async (how) => {
    const owner = await newPerson();
    const member = await newPerson();
    const id = await newTeam(owner);
    await join(owner, id, member);
    const inTeam = { ...member, token: await people.logIn(member.user, id) };
    const { key } = await people.addKey(id, { userId: member.user.id });
    const withKey = { ...member, token: key };
    expect([(await as(inTeam, '/v1/capsules')).status, (await as(withKey, '/v1/capsules')).status]).toEqual([200, 200]);
    const ended =
      how === 'removal'
        ? await as(owner, `/v1/teams/${id}/members/${member.user.id}`, { method: 'DELETE' })
        : await as(inTeam, `/v1/teams/${id}/leave`, { method: 'POST' });
    expect(ended.status).toBe(204);
    expect([(await as(inTeam, '/v1/capsules')).status, (await as(withKey, '/v1/capsules')).status]).toEqual([403, 401]);
    // Coming back does not bring back what was handed out before.
    await join(owner, id, member);
    expect([(await as(inTeam, '/v1/capsules')).status, (await as(withKey, '/v1/capsules')).status]).toEqual([200, 401]);
    expect(await auditOf(id, 'member', how === 'removal' ? 'remove' : 'leave')).toHaveLength(1);
  });

  it('takes back the invitations of a manager, as a demotion does', async () => {
    const owner = await newPerson();
    const admin = await newPerson();
    const id = await newTeam(owner);
    await join(owner, id, admin, 'admin');
    const made = await as(admin, `/v1/teams/${id}/invitations`, { json: {} });
    const path = `/v1/teams/${id}/members/${admin.user.id}`;
    expect(await as(owner, path, { method: 'PATCH', json: { role: 'member' } })).toMatchObject({ status: 204 });
    expect(await as(admin, `/v1/teams/${id}/invitations`, { json: {} })).toMatchObject({ status: 403 });
    const late = await as(await newPerson(), '/v1/invitations/accept', { json: { token: made.body.token } });
    expect(late).toMatchObject({ status: 400, body: { error: { code: 'invalid_token' } } });
    expect(await auditOf(id, 'member', 'role_update')).toMatchObject([{ metadata: { before: 'admin' } }]);
  });

  it('and a transfer at the same instant leave one owner, who is a member', async () => {
    for (let round = 0; round < 8; round++) {
      const owner = await newPerson();
      const [heir, admin] = [await newPerson(), await newPerson()];
      const id = await newTeam(owner);
      await join(owner, id, heir);
      await join(owner, id, admin, 'admin');
      const [transfer, removal] = await Promise.all([
        as(owner, `/v1/teams/${id}/transfer`, { json: { user_id: heir.user.id } }),
        as(admin, `/v1/teams/${id}/members/${heir.user.id}`, { method: 'DELETE' }),
      ]);
      expect([
        [204, 409],
        [404, 204],
      ]).toContainEqual([transfer.status, removal.status]);
      const members = await people.db.select().from(teamMembers).where(eq(teamMembers.teamId, id));
      expect(members.filter(({ role }) => role === 'owner')).toHaveLength(1);
    }
  });

  it('closes terminals and command streams within seconds, on every control plane', async () => {
    const owner = await newPerson();
    const id = await newTeam(owner);
    const member = await newPerson();
    await join(owner, id, member);
    const token = await people.logIn(member.user, id);
    const { key } = await people.addKey(id, { userId: member.user.id });
    const teamKey = await people.addKey(id);
    const capsuleId = await createCapsule(token);
    await using another = await platform.startAnother();
    const open = (credential: string, port?: number) =>
      platform.connect(`/v1/capsules/${capsuleId}/pty`, port === undefined ? { credential } : { credential, port });
    const ending = [await open(token), await open(key), await open(token, another.port)];
    const staying = await open(teamKey.key);
    for (const socket of [...ending, staying]) {
      socket.send({ type: 'start', cols: 80, rows: 24 });
      await socket.takeUntil(({ type }) => type === 'started');
    }
    await as(owner, `/v1/teams/${id}/members/${member.user.id}`, { method: 'DELETE' });
    using stopwatch = startStopwatch();
    expect(await Promise.all(ending.map((socket) => socket.closed()))).toEqual([1008, 1008, 1008]);
    // Long before access would be looked at again.
    expect(stopwatch.elapsedMs).toBeLessThan(15_000);
    // The other one goes on.
    staying.send({ type: 'kill' });
    await staying.takeUntil(({ type }) => type === 'exit');
    staying.socket.terminate();
  });
});

async function createCapsule(credential: string): Promise<string> {
  const { status, body } = await platform.call('/v1/capsules', { json: {}, headers: { 'x-api-key': credential } });
  expect(status).toBe(201);
  return body.id;
}
