import { and, eq, sql } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import { oneTimeTokens, teamMembers, teams, users } from '../database/people-schema.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { PASSWORD, Visitor } from '../testing/visitor.ts';
import { FAILURES_TO_LOCK } from './lock-out.ts';
import { Passwords } from './passwords.ts';

let platform: TestPlatform;
let people: TestPeople;
let visitor: Visitor;
beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
  visitor = new Visitor(platform, people);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

const change = (userId: string, fields: Partial<typeof users.$inferInsert>) =>
  people.db.update(users).set(fields).where(eq(users.id, userId));
const stateOf = async (userId: string) => {
  const [user] = await people.db.select().from(users).where(eq(users.id, userId));
  return user;
};

describe('a login', () => {
  it('gives a token for the default team, that works as a header and, for its own pages, as a cookie', async () => {
    const { user_id, team_id } = await visitor.arrive('ada@example.com');
    const { status, body, headers } = await visitor.call('/v1/auth/login', {
      json: { email: 'ADA@example.com', password: PASSWORD },
    });
    expect({ status, body }).toMatchObject({
      status: 200,
      body: { user_id, team_id, role: 'owner', email: 'ada@example.com', name: 'Ada Lovelace' },
    });
    expect((await visitor.call('/v1/me', { token: body.token })).body).toMatchObject({ user_id, team_id });
    const cookie = headers.get('set-cookie')?.split(';')[0] ?? '';
    expect((await visitor.call('/v1/me', { headers: { cookie } })).body).toMatchObject({ user_id });
    const json = { name: 'Countess' };
    expect((await visitor.call('/v1/me', { json, method: 'PATCH', headers: { cookie } })).status).toBe(403);
    const own = { cookie, origin: platform.baseUrl };
    expect((await visitor.call('/v1/me', { json, method: 'PATCH', headers: own })).body.name).toBe('Countess');
  });

  it('is for the first live team when the default one is deleted, and for none when there is none', async () => {
    const auth = await visitor.arrive('member@example.com');
    const owner = await people.addUser();
    const other = await people.addTeam([{ user: owner, role: 'owner' }]);
    await people.addMember(other, { id: auth.user_id, email: auth.email, name: auth.name }, 'member');
    await people.db
      .update(teams)
      .set({ deletedAt: new Date() })
      .where(eq(teams.id, auth.team_id ?? ''));
    expect((await visitor.logIn(auth.email)).body).toMatchObject({ team_id: other, role: 'member' });
    // What the token of the deleted team can still do is what somebody without a team can.
    const inTeam = await visitor.call('/v1/capsules', { token: auth.token });
    expect([inTeam.status, inTeam.body.error.code]).toEqual([403, 'no_team']);
    expect((await visitor.call('/v1/me', { token: auth.token })).body).toMatchObject({ team_id: null, role: null });

    await people.db.delete(teamMembers).where(and(eq(teamMembers.userId, auth.user_id), eq(teamMembers.teamId, other)));
    const without = await visitor.logIn(auth.email);
    expect(without).toMatchObject({ status: 200, body: { team_id: null, role: null } });
    expect((await visitor.call('/v1/capsules', { token: without.body.token })).body.error.code).toBe('no_team');
  });

  it('that fails gives one answer for an unknown address, a wrong password, a locked account and one without', async () => {
    const { user_id: lockedId } = await visitor.arrive('locked@example.com');
    await visitor.arrive('wrong@example.com');
    const { email: passwordless } = await people.addUser();
    await change(lockedId, { lockedUntil: new Date(Date.now() + 60_000) });
    const answers = [
      await visitor.logIn('nobody@example.com'),
      await visitor.logIn('wrong@example.com', 'not the password'),
      await visitor.logIn('locked@example.com'),
      await visitor.logIn('locked@example.com', 'not the password'),
      await visitor.logIn(passwordless),
    ];
    const shown = answers.map(({ status, body: { error } }) => ({ status, error: { ...error, request_id: '' } }));
    expect(shown).toEqual(Array(answers.length).fill(shown[0]));
    expect(shown[0]).toMatchObject({ status: 401, error: { code: 'unauthorized', reason: 'invalid_credentials' } });
    const reasons = await people.db
      .select({ name: auditLog.actorName, reason: sql<string>`metadata ->> 'reason'` })
      .from(auditLog)
      .where(and(eq(auditLog.action, 'login'), eq(auditLog.status, 'error')))
      .orderBy(auditLog.createdAt, auditLog.id);
    expect(reasons.map(({ reason }) => reason)).toEqual(
      expect.arrayContaining(['unknown_account', 'wrong_password', 'locked']),
    );
    expect(reasons).toContainEqual({ name: 'nobody@example.com', reason: 'unknown_account' });
  });

  it('tells what is wrong with an account to who has its password only', async () => {
    const { user_id } = await visitor.arrive('off@example.com');
    for (const status of ['disabled', 'deleted'] as const) {
      await change(user_id, { status });
      expect((await visitor.logIn('off@example.com', 'wrong')).body.error.reason).toBe('invalid_credentials');
      const { status: http, body } = await visitor.logIn('off@example.com');
      expect([http, body.error.code]).toEqual([403, 'account_deactivated']);
    }
  });

  it('asks for the second factor where there is one, with a challenge for it', async () => {
    const { user_id } = await visitor.arrive('careful@example.com');
    await change(user_id, { totpConfirmedAt: new Date() });
    expect((await visitor.logIn('careful@example.com', 'wrong')).body.error.reason).toBe('invalid_credentials');
    const { status, body, headers } = await visitor.call('/v1/auth/login', {
      json: { email: 'careful@example.com', password: PASSWORD },
    });
    expect([status, body.error.reason]).toEqual([401, 'two_factor_required']);
    expect(headers.get('set-cookie')).toBeNull();
    expect(body.error.details.challenge).toMatch(/^[\da-f]{64}$/);
    const [kept] = await people.db.select().from(oneTimeTokens).where(eq(oneTimeTokens.purpose, 'two_factor'));
    expect(kept).toMatchObject({ subject: user_id, data: { method: 'password' } });
    // A right password without the second factor is neither a failure nor the end of failures.
    expect((await stateOf(user_id))?.failedLogins).toBe(1);
  });

  it('hashes the password anew where it was hashed at another cost', async () => {
    const { user_id } = await visitor.arrive('stale@example.com');
    const before = await stateOf(user_id);
    expect(before?.passwordHash).toContain('$ln=8,r=8,p=1$');
    await change(user_id, { passwordHash: await new Passwords({ logN: 7, r: 8, p: 2 }).hash(PASSWORD) });
    const answers = await Promise.all(Array.from({ length: 4 }, () => visitor.logIn('stale@example.com')));
    expect(answers.map(({ status }) => status)).toEqual(Array(4).fill(200));
    const after = await stateOf(user_id);
    expect(after?.passwordHash).toContain('$ln=8,r=8,p=1$');
    expect((await visitor.logIn('stale@example.com')).status).toBe(200);
    expect((await stateOf(user_id))?.passwordHash).toBe(after?.passwordHash);
  });
});

describe('the lock of an account', () => {
  const wrong = (email: string) => visitor.logIn(email, 'not the password');

  it('is reached by exactly so many wrong passwords, also at the same moment, and takes no right one', async () => {
    const { user_id } = await visitor.arrive('target@example.com');
    const before = Date.now();
    await Promise.all(Array.from({ length: 3 * FAILURES_TO_LOCK }, () => wrong('target@example.com')));
    const locked = await stateOf(user_id);
    expect(locked?.failedLogins).toBe(FAILURES_TO_LOCK);
    expect(Number(locked?.lockedUntil)).toBeGreaterThan(before + 50_000);
    expect((await visitor.logIn('target@example.com')).body.error.reason).toBe('invalid_credentials');
  });

  it('grows with each failure after it, and ends with a right password', async () => {
    const { user_id } = await visitor.arrive('again@example.com');
    await change(user_id, { failedLogins: FAILURES_TO_LOCK, lockedUntil: new Date(Date.now() - 1000) });
    const before = Date.now();
    await wrong('again@example.com');
    expect(Number((await stateOf(user_id))?.lockedUntil)).toBeGreaterThan(before + 110_000);
    await change(user_id, { failedLogins: 40, lockedUntil: new Date(Date.now() - 1000) });
    await wrong('again@example.com');
    const longest = Number((await stateOf(user_id))?.lockedUntil);
    expect(longest).toBeGreaterThan(before + 3_590_000);
    expect(longest).toBeLessThan(Date.now() + 3_601_000);
    await change(user_id, { lockedUntil: new Date(Date.now() - 1000) });
    expect((await visitor.logIn('again@example.com')).status).toBe(200);
    expect(await stateOf(user_id)).toMatchObject({ failedLogins: 0, lockedUntil: null });
  });

  it('is not reached by right passwords, however many at the same moment', async () => {
    const { user_id } = await visitor.arrive('busy@example.com');
    const answers = await Promise.all(Array.from({ length: 10 }, () => visitor.logIn('busy@example.com')));
    expect(answers.map(({ status }) => status)).toEqual(Array(10).fill(200));
    expect(await stateOf(user_id)).toMatchObject({ failedLogins: 0, lockedUntil: null });
  });
});

describe('switching the team', () => {
  it('gives a token of the same session with what the database says now', async () => {
    const auth = await visitor.arrive('two-teams@example.com');
    const owner = await people.addUser();
    const other = await people.addTeam([{ user: owner, role: 'owner' }]);
    await people.addMember(other, { id: auth.user_id, email: auth.email, name: auth.name }, 'admin');
    await change(auth.user_id, { name: 'Renamed elsewhere' });
    const switched = await visitor.call('/v1/auth/switch-team', { json: { team_id: other }, token: auth.token });
    expect(switched).toMatchObject({
      status: 200,
      body: { team_id: other, role: 'admin', name: 'Renamed elsewhere', session_id: auth.session_id },
    });
    const claims = JSON.parse(Buffer.from(switched.body.token.split('.')[1], 'base64url').toString());
    expect(claims).toMatchObject({ team_id: other, role: 'admin', name: 'Renamed elsewhere' });
    expect((await visitor.call('/v1/me', { token: switched.body.token })).body).toMatchObject({ team_id: other });
  });

  it('is refused for a team of others, a deleted one and one that never was', async () => {
    const auth = await visitor.arrive('stranger@example.com');
    const switchTo = (team_id: string) =>
      visitor.call('/v1/auth/switch-team', { json: { team_id }, token: auth.token });
    const owner = await people.addUser();
    const foreign = await people.addTeam([{ user: owner, role: 'owner' }]);
    expect((await switchTo(foreign)).status).toBe(403);
    await people.db.update(teams).set({ deletedAt: new Date() }).where(eq(teams.id, foreign));
    expect((await switchTo(foreign)).status).toBe(404);
    expect((await switchTo('team-nonsense')).status).toBe(404);
    expect((await platform.call('/v1/auth/switch-team', { json: { team_id: foreign } })).body.error.reason).toBe(
      'login_required',
    );
  });
});

describe('a platform that people reach by https', () => {
  it('gives a cookie that travels by https only, taken from its pages', async () => {
    await using secure = await TestPlatform.start({ CP_PUBLIC_URL: 'https://wrenn.example.com/' });
    await using those = await TestPeople.of(secure);
    const guest = new Visitor(secure, those);
    await guest.arrive('ada@example.com');
    const { headers } = await guest.call('/v1/auth/login', { json: { email: 'ada@example.com', password: PASSWORD } });
    expect(headers.get('set-cookie')).toMatch(/; HttpOnly; Secure; SameSite=Lax$/);
    const cookie = headers.get('set-cookie')?.split(';')[0] ?? '';
    const rename = async (origin: string) => {
      const init = { json: { name: 'Ada' }, method: 'PATCH', headers: { cookie, origin } };
      return (await guest.call('/v1/me', init)).status;
    };
    expect(await rename('https://wrenn.example.com')).toBe(200);
    expect(await rename('https://evil.example.com')).toBe(403);
  });
});
