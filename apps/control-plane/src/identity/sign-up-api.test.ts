import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import { mails } from '../database/mail-schema.ts';
import { oneTimeTokens, teamMembers, users } from '../database/people-schema.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { PASSWORD, Visitor } from '../testing/visitor.ts';

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

const activate = (token: string) => visitor.call('/v1/auth/activate', { json: { token } });
const userOf = async (email: string) => {
  const [user] = await people.db.select().from(users).where(eq(users.email, email));
  return user;
};
const age = (email: string) =>
  people.db
    .update(users)
    .set({ createdAt: new Date(Date.now() - 31 * 60_000) })
    .where(eq(users.email, email));

describe('sign-up', () => {
  it('gives an account that its mail activates, with a team of its own, logged in, and no power over the platform', async () => {
    const { status, body } = await visitor.signUp('ada@example.com');
    expect(status).toBe(201);
    expect(body.message).toContain('administrator');
    expect((await visitor.logIn('ada@example.com')).body.error.code).toBe('account_not_activated');

    const token = await visitor.tokenFrom('ada@example.com');
    const activated = await activate(token);
    expect(activated).toMatchObject({
      status: 200,
      body: { email: 'ada@example.com', name: 'Ada Lovelace', role: 'owner', is_admin: false },
    });
    expect(activated.headers.get('set-cookie')).toMatch(/^wrenn_session=.*HttpOnly; SameSite=Lax/);
    const teams = await visitor.call('/v1/teams', { token: activated.body.token });
    expect(teams.body).toMatchObject([
      { id: activated.body.team_id, name: "Ada Lovelace's team", role: 'owner', is_default: true },
    ]);
    // Of one token only the first use counts.
    expect((await activate(token)).body.error.code).toBe('invalid_token');
  });

  it('is answered the same whether or not the address has an account', async () => {
    await visitor.arrive('known@example.com');
    const answers = [await visitor.signUp('new@example.com'), await visitor.signUp('Known@Example.com')];
    expect(answers.map(({ status }) => status)).toEqual([201, 201]);
    expect(answers[0]?.body).toEqual(answers[1]?.body);
    expect(await visitor.mailsTo('known@example.com')).toEqual(['activation', 'sign_up_existing']);
    // Its password is still the first.
    expect((await visitor.logIn('known@example.com')).status).toBe(200);
  });

  it('is not repeated within half an hour, and replaces an older one after it', async () => {
    await visitor.signUp('slow@example.com');
    const first = await visitor.tokenFrom('slow@example.com');
    await visitor.signUp('slow@example.com', { password: 'another password' });
    expect(await visitor.mailsTo('slow@example.com')).toEqual(['activation']);
    await age('slow@example.com');
    await visitor.signUp('slow@example.com', { password: 'a third password' });
    expect(await visitor.mailsTo('slow@example.com')).toEqual(['activation', 'activation']);
    expect((await activate(first)).body.error.code).toBe('invalid_token');
    expect((await activate(await visitor.tokenFrom('slow@example.com'))).status).toBe(200);
    expect((await visitor.logIn('slow@example.com', 'a third password')).status).toBe(200);
  });

  it('makes one account of many at the same moment', async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => visitor.signUp('crowd@example.com')));
    expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(201));
    expect(await visitor.mailsTo('crowd@example.com')).toEqual(['activation']);
    expect((await activate(await visitor.tokenFrom('crowd@example.com'))).status).toBe(200);
  });

  it('refuses what is no account', async () => {
    for (const [change, field] of [
      [{ email: 'no-address' }, 'email'],
      [{ password: 'short' }, 'password'],
      [{ name: '  ' }, 'name'],
    ] as const) {
      const { status, body } = await visitor.signUp('wrong@example.com', change);
      expect({ status, message: body.error.message }).toEqual({
        status: 400,
        message: expect.stringContaining(field),
      });
    }
  });

  it('keeps no password, nor the token that activates', async () => {
    await visitor.signUp('secret@example.com');
    const token = await visitor.tokenFrom('secret@example.com');
    const kept = {
      user: await userOf('secret@example.com'),
      tokens: await people.db.select().from(oneTimeTokens),
      mails: await people.db.select().from(mails).where(eq(mails.toAddress, 'secret@example.com')),
      audit: await people.db.select().from(auditLog),
    };
    expect(JSON.stringify(kept)).not.toContain(PASSWORD);
    expect(JSON.stringify(kept)).not.toContain(token);
    expect(kept.user?.passwordHash).toMatch(/^\$scrypt\$ln=/);
  });
});

describe('activation', () => {
  it('happens once, however often it is asked at the same moment', async () => {
    await visitor.signUp('twice@example.com');
    const token = await visitor.tokenFrom('twice@example.com');
    const answers = await Promise.all(Array.from({ length: 6 }, () => activate(token)));
    expect(answers.map(({ status }) => status).toSorted()).toEqual([200, 400, 400, 400, 400, 400]);
    const user = await userOf('twice@example.com');
    const memberships = await people.db
      .select()
      .from(teamMembers)
      .where(eq(teamMembers.userId, user?.id ?? ''));
    expect(memberships).toHaveLength(1);
  });

  it('needs a token that holds', async () => {
    expect((await activate('nonsense')).body.error.code).toBe('invalid_token');
    await visitor.signUp('late@example.com');
    await people.db.update(oneTimeTokens).set({ expiresAt: new Date(Date.now() - 1000) });
    const { status, body } = await activate(await visitor.tokenFrom('late@example.com'));
    expect({ status, code: body.error.code }).toEqual({ status: 400, code: 'invalid_token' });
    expect((await userOf('late@example.com'))?.status).toBe('inactive');
  });

  it('tells that an account is active already', async () => {
    await visitor.signUp('active@example.com');
    await people.db.update(users).set({ status: 'active' }).where(eq(users.email, 'active@example.com'));
    const { body } = await activate(await visitor.tokenFrom('active@example.com'));
    expect(body.error.code).toBe('already_activated');
  });

  it('makes nobody an administrator, also when nobody else is active', async () => {
    await people.db.update(users).set({ status: 'disabled' });
    const auth = await visitor.arrive('alone@example.com');
    expect(auth.is_admin).toBe(false);
    expect((await visitor.logIn('alone@example.com')).body.is_admin).toBe(false);
  });

  it('is in the audit log, with the sign-up and the login, for administrators and for managers of the team', async () => {
    const auth = await visitor.arrive('audited@example.com');
    const entries = await people.db.select().from(auditLog).where(eq(auditLog.actorId, auth.user_id));
    const facts = entries.map(({ action, scope, teamId, address }) => ({ action, scope, teamId, address }));
    const from = { address: '127.0.0.1' };
    expect(facts).toEqual(
      expect.arrayContaining([
        { action: 'sign_up', scope: 'platform', teamId: null, ...from },
        { action: 'activate', scope: 'platform', teamId: null, ...from },
        { action: 'login', scope: 'platform', teamId: null, ...from },
        { action: 'login', scope: 'admin', teamId: auth.team_id, ...from },
      ]),
    );
  });
});

describe('a sign-up with an invitation', () => {
  async function invite(email?: string): Promise<{ teamId: string; token: string }> {
    const owner = await people.addUser();
    const teamId = await people.addTeam([{ user: owner, role: 'owner' }]);
    const made = await visitor.call(`/v1/teams/${teamId}/invitations`, {
      json: { role: 'admin', email },
      token: await people.logIn(owner, teamId),
    });
    expect(made.status).toBe(201);
    return { teamId, token: made.body.token };
  }

  it('enters the team that invited, and gets no other', async () => {
    const { teamId, token } = await invite('guest@example.com');
    const auth = await visitor.arrive('guest@example.com', { invitation: token });
    expect(auth).toMatchObject({ team_id: teamId, role: 'admin' });
    expect((await visitor.call('/v1/teams', { token: auth.token })).body).toHaveLength(1);
  });

  it('gets a team of its own where the invitation is for somebody else or was taken meanwhile', async () => {
    const { token } = await invite('somebody@example.com');
    expect(await visitor.arrive('thief@example.com', { invitation: token })).toMatchObject({ role: 'owner' });
    const open = await invite();
    await visitor.signUp('second@example.com', { invitation: open.token });
    expect(await visitor.arrive('first@example.com', { invitation: open.token })).toMatchObject({
      team_id: open.teamId,
    });
    const { body } = await activate(await visitor.tokenFrom('second@example.com'));
    expect(body).toMatchObject({ role: 'owner' });
    expect(body.team_id).not.toBe(open.teamId);
  });
});

describe('a platform that is closed', () => {
  it('takes sign-ups with an invitation for their address only', async () => {
    await using closed = await TestPlatform.start({ WRENN_SIGN_UP: 'invited' });
    await using those = await TestPeople.of(closed);
    const guest = new Visitor(closed, those);
    const owner = await those.addUser();
    const teamId = await those.addTeam([{ user: owner, role: 'owner' }]);
    const token = await those.logIn(owner, teamId);
    const json = { email: 'asked@example.com' };
    const made = await guest.call(`/v1/teams/${teamId}/invitations`, { json, token });
    expect((await guest.call('/v1/auth/providers')).body).toMatchObject({ password: true, sign_up: 'invited' });
    const invitation = made.body.token;
    const refused = [
      await guest.signUp('asked@example.com'),
      await guest.signUp('asked@example.com', { invitation: 'nonsense' }),
      await guest.signUp('other@example.com', { invitation }),
    ];
    expect(refused.map(({ status, body }) => [status, body.error.code])).toEqual(
      Array(3).fill([403, 'sign_up_closed']),
    );
    expect(await guest.arrive('asked@example.com', { invitation })).toMatchObject({ team_id: teamId, role: 'member' });
    const revoked = await guest.call(`/v1/teams/${teamId}/invitations`, { json: {}, token });
    await guest.signUp('late@example.com', { invitation: revoked.body.token });
    await guest.call(`/v1/teams/${teamId}/invitations/${revoked.body.id}`, { method: 'DELETE', token });
    const late = { token: await guest.tokenFrom('late@example.com') };
    expect((await guest.call('/v1/auth/activate', { json: late })).body.error.code).toBe('sign_up_closed');
  });
});
