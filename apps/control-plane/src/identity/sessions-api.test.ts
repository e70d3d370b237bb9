import { until } from '@wrenn/testing/until';
import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import { sessions, users } from '../database/people-schema.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { Visitor } from '../testing/visitor.ts';
import { pruneSessions } from './sessions.ts';

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

const me = (token: string) => visitor.call('/v1/me', { token });
const revoke = (token: string, id = '') =>
  visitor.call(`/v1/me/sessions${id ? `/${id}` : ''}`, { method: 'DELETE', token });

describe('sessions', () => {
  it('are listed with where and how they began, the newest first', async () => {
    const first = await visitor.arrive('ada@example.com');
    const second = await visitor.logIn('ada@example.com');
    const { body } = await visitor.call('/v1/me/sessions', { token: second.body.token });
    expect(body).toMatchObject([
      { id: second.body.session_id, method: 'password', address: '127.0.0.1', current: true },
      { id: first.session_id, method: 'activation', user_agent: expect.any(String), current: false },
    ]);
    expect(Date.parse(body[0].expires_at) - Date.parse(body[0].created_at)).toBeCloseTo(30 * 86_400_000, -5);
  });

  it('end at once: one, all others, one of oneself', async () => {
    const one = await visitor.arrive('many@example.com');
    const [two, three, four] = await Promise.all([1, 2, 3].map(() => visitor.logIn('many@example.com')));
    expect((await revoke(one.token, two?.body.session_id)).status).toBe(204);
    expect((await me(two?.body.token)).status).toBe(401);
    expect((await revoke(one.token, two?.body.session_id)).status).toBe(404);
    expect((await revoke(three?.body.token)).status).toBe(204);
    expect([(await me(one.token)).status, (await me(four?.body.token)).status]).toEqual([401, 401]);
    const left = await visitor.call('/v1/me/sessions', { token: three?.body.token });
    expect(left.body.map(({ id }: { id: string }) => id)).toEqual([three?.body.session_id]);

    const out = await visitor.call('/v1/auth/logout', { method: 'POST', token: three?.body.token });
    expect(out.status).toBe(204);
    expect(out.headers.get('set-cookie')).toMatch(/^wrenn_session=;/);
    expect((await me(three?.body.token)).status).toBe(401);
    const entries = await people.db.select().from(auditLog).where(eq(auditLog.resourceId, one.user_id));
    const actions = entries.map(({ action }) => action);
    expect(actions.filter((action) => action === 'session_revoke')).toHaveLength(2);
    expect(actions.filter((action) => action === 'logout')).toHaveLength(1);
  });

  it('of others are nobody’s to see or end', async () => {
    const victim = await visitor.arrive('victim@example.com');
    const thief = await visitor.arrive('thief@example.com');
    expect((await revoke(thief.token, victim.session_id)).status).toBe(404);
    expect((await me(victim.token)).status).toBe(200);
    expect((await visitor.call('/v1/me/sessions', { token: thief.token })).body).toHaveLength(1);
    expect((await platform.call('/v1/me/sessions')).body.error.reason).toBe('login_required');
  });

  it('are refused once they ran out, and when the account is switched off', async () => {
    const auth = await visitor.arrive('old@example.com');
    await people.db.update(users).set({ status: 'disabled' }).where(eq(users.id, auth.user_id));
    expect((await me(auth.token)).body.error.code).toBe('account_deactivated');
    await people.db.update(users).set({ status: 'active' }).where(eq(users.id, auth.user_id));
    await people.db
      .update(sessions)
      .set({ expiresAt: new Date(Date.now() - 1) })
      .where(eq(sessions.id, auth.session_id));
    expect((await me(auth.token)).status).toBe(401);
  });

  it('close what is open on them when they end', async () => {
    const auth = await visitor.arrive('terminal@example.com');
    const capsule = await visitor.call('/v1/capsules', { json: {}, token: auth.token });
    expect(capsule.status).toBe(201);
    const socket = await platform.connect(`/v1/capsules/${capsule.body.id}/exec/stream`, { credential: auth.token });
    const other = await visitor.logIn('terminal@example.com');
    await revoke(other.body.token, auth.session_id);
    expect(await socket.closed()).toBe(1008);
  });

  it('are noted as seen, some time after', async () => {
    const auth = await visitor.arrive('seen@example.com');
    const before = new Date(Date.now() - 3_600_000);
    await people.db.update(sessions).set({ lastSeenAt: before }).where(eq(sessions.id, auth.session_id));
    await me(auth.token);
    await until('the session is seen', async () => {
      const { body } = await visitor.call('/v1/me/sessions', { token: auth.token });
      return Date.parse(body[0].last_seen_at) > Date.now() - 60_000;
    });
  });

  it('are forgotten some time after they ended', async () => {
    const auth = await visitor.arrive('gone@example.com');
    const other = await visitor.logIn('gone@example.com');
    await revoke(auth.token, other.body.session_id);
    expect(await pruneSessions(people.db, 3_600_000)).toBe(0);
    await people.db
      .update(sessions)
      .set({ revokedAt: new Date(Date.now() - 3_601_000) })
      .where(eq(sessions.id, other.body.session_id));
    expect(await pruneSessions(people.db, 3_600_000)).toBe(1);
    expect((await me(auth.token)).status).toBe(200);
  });
});

describe('one’s own account', () => {
  it('says what there is, and a new name is in the answer, the token and the next login', async () => {
    const auth = await visitor.arrive('name@example.com');
    expect((await me(auth.token)).body).toEqual({
      user_id: auth.user_id,
      name: 'Ada Lovelace',
      email: 'name@example.com',
      is_admin: false,
      has_password: true,
      providers: [],
      two_factor: false,
      passkeys: 0,
      team_id: auth.team_id,
      role: 'owner',
      created_at: expect.any(String),
    });
    const renamed = await visitor.call('/v1/me', { json: { name: ' Countess ' }, method: 'PATCH', token: auth.token });
    expect(renamed.body).toMatchObject({ name: 'Countess', team_id: auth.team_id, session_id: auth.session_id });
    const claims = JSON.parse(Buffer.from(renamed.body.token.split('.')[1], 'base64url').toString());
    expect(claims.name).toBe('Countess');
    expect((await visitor.logIn('name@example.com')).body.name).toBe('Countess');
    for (const name of ['', ' ', 'x'.repeat(101)]) {
      expect((await visitor.call('/v1/me', { json: { name }, method: 'PATCH', token: auth.token })).status).toBe(400);
    }
  });
});
