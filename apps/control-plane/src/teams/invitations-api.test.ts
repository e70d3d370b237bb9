import { newId } from '@wrenn/protocol/ids';
import { and, eq, sql } from 'drizzle-orm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import { invitations, teamMembers } from '../database/people-schema.ts';
import { untilBlocked } from '../testing/blocked.ts';
import { TestPeople, type TestUser } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

type Person = { user: TestUser; token: string };
type Answer = Awaited<ReturnType<TestPlatform['call']>>;

let platform: TestPlatform;
let people: TestPeople;
let owner: Person;
let id: string;
beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});
beforeEach(async () => {
  owner = await newPerson('Olga');
  id = (await as(owner, '/v1/teams', { json: { name: 'Engines' } })).body.id;
});

const as = (person: Person | undefined, path: string, init: Parameters<TestPlatform['call']>[1] = {}) =>
  platform.call(path, { ...init, headers: { 'x-api-key': person?.token ?? '', ...init.headers } });

async function newPerson(name = 'Ada'): Promise<Person> {
  const user = await people.addUser({ name });
  return { user, token: await people.logIn(user, undefined) };
}

const invite = (json: object = {}) => as(owner, `/v1/teams/${id}/invitations`, { json });
const accept = (person: Person, token: string) => as(person, '/v1/invitations/accept', { json: { token } });
const preview = (token: string) => platform.call('/v1/invitations/preview', { json: { token }, headers: {} });
const isInvalid = { status: 400, body: { error: { code: 'invalid_token' } } };

describe('a link for anybody', () => {
  it('says what it is for, brings one person in, and works once', async () => {
    const { status, body } = await invite({ role: 'admin', expires_in_hours: 2 });
    expect(status).toBe(201);
    expect(body).toMatchObject({
      status: 'pending',
      email: null,
      role: 'admin',
      team_name: 'Engines',
      invited_by: 'Olga',
    });
    expect(body.link).toBe(`${platform.baseUrl}/invite?token=${body.token}`);
    expect(Date.parse(body.expires_at) - Date.parse(body.created_at)).toBeCloseTo(2 * 3_600_000, -4);
    expect(await preview(body.token)).toMatchObject({
      status: 200,
      body: { team_name: 'Engines', invited_by: 'Olga', role: 'admin', email: null },
    });
    const ada = await newPerson();
    expect(await accept(ada, body.token)).toMatchObject({ status: 200, body: { id, role: 'admin', is_default: true } });
    // Who repeats a request whose answer was lost is in the team already.
    expect(await accept(ada, body.token)).toMatchObject({ status: 200, body: { id, role: 'admin' } });
    expect(await accept(await newPerson(), body.token)).toMatchObject(isInvalid);
    expect(await preview(body.token)).toMatchObject(isInvalid);
    const kept = JSON.stringify(await people.db.select().from(invitations).where(eq(invitations.id, body.id)));
    expect(kept).not.toContain(body.token);
    const told = await people.db
      .select()
      .from(auditLog)
      .where(and(eq(auditLog.teamId, id), eq(auditLog.scope, 'admin')));
    expect(told.map(({ resourceType, action }) => `${resourceType} ${action}`).sort()).toEqual([
      'invitation create',
      'member add',
    ]);
    expect(JSON.stringify(told)).not.toContain(body.token);
  });

  it('that several accept at the same instant lets one of them in', async () => {
    const { body } = await invite();
    const crowd = await Promise.all(Array.from({ length: 6 }, () => newPerson()));
    const answers = await Promise.all(crowd.map((person) => accept(person, body.token)));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 400, 400, 400, 400, 400]);
    const members = await people.db.select().from(teamMembers).where(eq(teamMembers.teamId, id));
    expect(members).toHaveLength(2);
  });

  it('leaves the default team of somebody who has one, and gives one to who joins two at once', async () => {
    const second = await as(owner, '/v1/teams', { json: { name: 'Second' } });
    const links = [await invite(), await as(owner, `/v1/teams/${second.body.id}/invitations`, { json: {} })];
    const ada = await newPerson();
    const joined = await Promise.all(links.map(({ body }) => accept(ada, body.token)));
    expect(joined.map(({ status }) => status)).toEqual([200, 200]);
    const teams = (await as(ada, '/v1/teams')).body as { is_default: boolean }[];
    expect(teams.map((team) => team.is_default)).toEqual([true, false]);
  });
});

describe('an invitation by mail', () => {
  it('is for that account only, and a newer one replaces it', async () => {
    const ada = await newPerson();
    const older = await invite({ email: ada.user.email });
    const newer = await invite({ email: ada.user.email.toUpperCase() });
    expect(await accept(await newPerson(), newer.body.token)).toMatchObject({
      status: 403,
      body: { error: { reason: 'invitation_for_other' } },
    });
    expect(await accept(ada, older.body.token)).toMatchObject(isInvalid);
    expect(await accept(ada, newer.body.token)).toMatchObject({ status: 200 });
    expect(await invite({ email: ada.user.email })).toMatchObject({ status: 409 });
  });
});

describe('an invitation', () => {
  it('can be taken back, expires, and ends with its team', async () => {
    const [revoked, expired, orphaned] = [await invite(), await invite(), await invite()];
    const path = `/v1/teams/${id}/invitations/${revoked.body.id}`;
    expect(await as(owner, path, { method: 'DELETE' })).toMatchObject({ status: 204 });
    expect(await as(owner, path, { method: 'DELETE' })).toMatchObject({ status: 404 });
    const past = new Date(Date.now() - 1);
    await people.db.update(invitations).set({ expiresAt: past }).where(eq(invitations.id, expired.body.id));
    expect((await as(owner, `/v1/teams/${id}/invitations`)).body.map((each: { id: string }) => each.id)).toEqual([
      orphaned.body.id,
    ]);
    const ada = await newPerson();
    for (const { body } of [revoked, expired]) expect(await accept(ada, body.token)).toMatchObject(isInvalid);
    expect(await as(owner, `/v1/teams/${id}`, { method: 'DELETE' })).toMatchObject({ status: 204 });
    expect(await accept(ada, orphaned.body.token)).toMatchObject(isInvalid);
    expect(await preview(orphaned.body.token)).toMatchObject(isInvalid);
    expect(await accept(ada, 'no-token-at-all')).toMatchObject(isInvalid);
  });

  it('is made, seen and taken back by managers only', async () => {
    const member = await newPerson();
    const { body } = await invite();
    await accept(member, body.token);
    const { body: pending } = await invite();
    const path = `/v1/teams/${id}/invitations`;
    const refused = { status: 403, body: { error: { reason: 'insufficient_role' } } };
    expect(await as(member, path, { json: {} })).toMatchObject(refused);
    expect(await as(member, path)).toMatchObject(refused);
    expect(await as(member, `${path}/${pending.id}`, { method: 'DELETE' })).toMatchObject(refused);
    const other = await as(member, '/v1/teams', { json: { name: 'Theirs' } });
    const foreign = `/v1/teams/${other.body.id}/invitations/${pending.id}`;
    expect(await as(member, foreign, { method: 'DELETE' })).toMatchObject({ status: 404 });
    expect(await accept(await newPerson(), pending.token)).toMatchObject({ status: 200 });
  });
});

describe('the limits of an hour', () => {
  /** As if so many had been made, for some other team. */
  async function madeBefore(count: number, fields: { email?: string; invitedBy?: string }): Promise<void> {
    const teamId = await people.addTeam();
    const common = { teamId, role: 'member' as const, expiresAt: new Date(Date.now() + 3_600_000), ...fields };
    const rows = Array.from({ length: count }, () => ({ ...common, id: newId('inv'), tokenHash: newId('inv') }));
    await people.db.insert(invitations).values(rows);
  }

  /** Statuses of two invitations of which neither sees the other before it counts, if it does not wait for it. */
  async function atOnce(invite: readonly [() => Promise<Answer>, () => Promise<Answer>]): Promise<number[]> {
    const { answers } = await people.db.transaction(async (tx) => {
      await tx.execute(sql`LOCK TABLE invitations IN SHARE MODE`);
      const begun = invite.map((each) => each());
      await untilBlocked(people.db, 2);
      return { answers: begun };
    });
    return (await Promise.all(answers)).map(({ status }) => status).sort();
  }

  it('hold for an address, though two teams invite it at the same moment', async () => {
    const [other, email] = [await newPerson(), 'wanted@example.com'];
    const theirs = (await as(other, '/v1/teams', { json: { name: 'Theirs' } })).body.id;
    await madeBefore(4, { email });
    const invitations = [
      () => invite({ email }),
      () => as(other, `/v1/teams/${theirs}/invitations`, { json: { email: email.toUpperCase() } }),
    ] as const;
    expect(await atOnce(invitations)).toEqual([201, 429]);
  });

  it('hold for a person, though they invite to two teams at the same moment', async () => {
    const second = (await as(owner, '/v1/teams', { json: { name: 'Second' } })).body.id;
    await madeBefore(59, { invitedBy: owner.user.id });
    const invitations = [() => invite(), () => as(owner, `/v1/teams/${second}/invitations`, { json: {} })] as const;
    expect(await atOnce(invitations)).toEqual([201, 429]);
  });
});
