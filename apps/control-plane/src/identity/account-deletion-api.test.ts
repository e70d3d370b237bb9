import { until } from '@wrenn/testing/until';
import { and, eq, isNotNull, or, sql } from 'drizzle-orm';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import { apiKeys, teamMembers, teams, users } from '../database/people-schema.ts';
import { Jobs } from '../jobs/jobs.ts';
import { untilBlocked } from '../testing/blocked.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { Visitor } from '../testing/visitor.ts';
import { GRACE_MS } from './account-deletion.ts';
import { PURGE_QUEUE, purgeAccounts } from './account-purge.ts';
import { holdUser } from './user-store.ts';

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

const remove = (token: string, confirmation: string) =>
  visitor.call('/v1/me', { method: 'DELETE', json: { confirmation }, token });

/** Purges with mail that only counts. */
async function purge(): Promise<{ purged: number; mailed: string[] }> {
  const mailed: string[] = [];
  const mail = {
    send: async (_tx: unknown, { to, kind }: { to: string; kind: string }) => mailed.push(`${kind} ${to}`),
  };
  const purged = await purgeAccounts({ db: people.db, mail }, new AbortController().signal);
  return { purged, mailed };
}

describe('deleting one’s account', () => {
  it('needs the address, ends what is one’s own, and leaves what is not', async () => {
    const auth = await visitor.arrive('leaving@example.com');
    const owner = await people.addUser();
    const shared = await people.addTeam([{ user: owner, role: 'owner' }]);
    await people.addMember(shared, { id: auth.user_id, email: auth.email, name: auth.name }, 'admin');
    const own = await people.addKey(shared, { userId: auth.user_id });
    const ofTeam = await people.addKey(shared, { createdBy: auth.user_id });
    const inOwnTeam = await people.addKey(auth.team_id ?? '');
    expect((await remove(auth.token, 'other@example.com')).status).toBe(400);

    const { status, headers } = await remove(auth.token, ' Leaving@example.com ');
    expect(status).toBe(204);
    expect(headers.get('set-cookie')).toMatch(/^wrenn_session=;/);
    expect((await visitor.call('/v1/me', { token: auth.token })).status).toBe(401);
    const [team] = await people.db
      .select()
      .from(teams)
      .where(eq(teams.id, auth.team_id ?? ''));
    expect(team?.deletedAt).not.toBeNull();
    const revoked = await people.db.select({ id: apiKeys.id }).from(apiKeys).where(isNotNull(apiKeys.revokedAt));
    expect(revoked.map(({ id }) => id).toSorted()).toEqual([own.id, inOwnTeam.id].toSorted());
    const works = await visitor.call('/v1/capsules', { headers: { 'x-api-key': ofTeam.key } });
    expect(works.status).toBe(200);
    expect(await visitor.mailsTo('leaving@example.com')).toEqual(['activation', 'deletion_scheduled']);
    const entries = await people.db.select().from(auditLog).where(eq(auditLog.resourceId, auth.user_id));
    expect(entries.map(({ action }) => action)).toContain('delete');
  });

  it('is refused to who owns a team that others are in', async () => {
    const auth = await visitor.arrive('owner@example.com');
    const member = await people.addUser();
    await people.addMember(auth.team_id ?? '', member, 'member');
    const { status, body } = await remove(auth.token, auth.email);
    expect({ status, error: body.error }).toMatchObject({
      status: 409,
      error: { code: 'owns_team_with_members', details: { team: "Ada Lovelace's team" } },
    });
    expect((await visitor.call('/v1/me', { token: auth.token })).status).toBe(200);
  });

  it('is refused to who owns a team since it began', async () => {
    const auth = await visitor.arrive('late-owner@example.com');
    const teamId = await people.addTeam([{ user: await people.addUser(), role: 'member' }]);
    const { answer } = await people.db.transaction(async (tx) => {
      await holdUser(tx, auth.user_id);
      await tx.insert(teamMembers).values({ teamId, userId: auth.user_id, role: 'owner' });
      const begun = remove(auth.token, auth.email);
      await untilBlocked(people.db);
      return { answer: begun };
    });
    expect((await answer).body.error.code).toBe('owns_team_with_members');
  });

  it('leaves no team to an account that is gone, neither passed on to it nor made by it', async () => {
    const [owner, auth] = [await people.addUser(), await visitor.arrive('no-heir@example.com')];
    const teamId = await people.addTeam([{ user: owner, role: 'owner' }]);
    await people.addMember(teamId, { id: auth.user_id, email: auth.email, name: auth.name }, 'admin');
    const token = await people.logIn(owner, teamId);
    const { answers } = await people.db.transaction(async (tx) => {
      await tx.update(users).set({ status: 'deleted' }).where(eq(users.id, auth.user_id));
      const begun = [
        visitor.call(`/v1/teams/${teamId}/transfer`, { json: { user_id: auth.user_id }, token }),
        visitor.call('/v1/teams', { json: { name: 'Late' }, token: auth.token }),
      ];
      await untilBlocked(people.db, 2);
      return { answers: begun };
    });
    const codes = (await Promise.all(answers)).map(({ body }) => body.error.code);
    expect(codes).toEqual(['not_found', 'account_deactivated']);
    const owned = and(eq(teamMembers.userId, auth.user_id), eq(teamMembers.role, 'owner'));
    expect(await people.db.select({ id: teamMembers.teamId }).from(teamMembers).where(owned)).toEqual([
      { id: auth.team_id },
    ]);
  });

  it('keeps the address for 15 days, in which a login says so and an administrator can bring it back', async () => {
    const auth = await visitor.arrive('back@example.com');
    await remove(auth.token, auth.email);
    expect((await visitor.logIn(auth.email)).body.error.code).toBe('account_deactivated');
    expect((await visitor.logIn(auth.email, 'nonsense')).body.error.reason).toBe('invalid_credentials');
    expect((await visitor.signUp(auth.email, { password: 'another password' })).status).toBe(201);
    expect(await visitor.mailsTo(auth.email)).toEqual(['activation', 'deletion_scheduled']);
    expect((await purge()).purged).toBe(0);
    await people.db.update(users).set({ status: 'active', deletedAt: null }).where(eq(users.id, auth.user_id));
    expect((await visitor.logIn(auth.email)).body).toMatchObject({ user_id: auth.user_id, team_id: null });
  });
});

describe('the purge', () => {
  it('erases who it was, and keeps what was done', async () => {
    const auth = await visitor.arrive('erased@example.com');
    const owner = await people.addUser();
    const shared = await people.addTeam([{ user: owner, role: 'owner' }]);
    const invitation = await visitor.call(`/v1/teams/${shared}/invitations`, {
      json: { email: auth.email },
      token: await people.logIn(owner, shared),
    });
    const accepted = await visitor.call('/v1/invitations/accept', {
      json: { token: invitation.body.token },
      token: auth.token,
    });
    expect(accepted.status).toBe(200);
    await visitor.logIn(auth.email, 'a wrong password');
    const about = or(
      eq(auditLog.actorId, auth.user_id),
      eq(auditLog.resourceId, auth.user_id),
      sql`metadata::text ILIKE ${`%${auth.email}%`}`,
      sql`actor_name ILIKE ${`%${auth.email}%`}`,
    );
    await remove(auth.token, auth.email);
    const count = async () => (await people.db.select({ id: auditLog.id }).from(auditLog)).length;
    const before = await count();
    expect((await people.db.select().from(auditLog).where(about)).length).toBeGreaterThan(5);
    const deletedAt = new Date(Date.now() - GRACE_MS - 1000);
    await people.db.update(users).set({ deletedAt }).where(eq(users.id, auth.user_id));

    expect(await purge()).toEqual({ purged: 1, mailed: ['account_deleted erased@example.com'] });
    expect(await people.db.select().from(auditLog).where(about)).toEqual([]);
    expect(await count()).toBe(before + 1);
    const anonymous = and(eq(auditLog.actorName, 'deleted-user'), isNotNull(auditLog.address));
    expect(await people.db.select().from(auditLog).where(anonymous)).toEqual([]);
    expect(await people.db.select().from(users).where(eq(users.id, auth.user_id))).toEqual([]);
    expect(await people.db.select().from(teamMembers).where(eq(teamMembers.userId, auth.user_id))).toEqual([]);
    expect((await purge()).purged).toBe(0);
    // The address is free again.
    expect((await visitor.arrive('erased@example.com')).user_id).not.toBe(auth.user_id);
  });

  it('erases sign-ups that nobody activated', async () => {
    await visitor.signUp('never@example.com');
    expect((await purge()).purged).toBe(0);
    const createdAt = new Date(Date.now() - 8 * 24 * 3_600_000);
    await people.db.update(users).set({ createdAt }).where(eq(users.email, 'never@example.com'));
    expect(await purge()).toEqual({ purged: 1, mailed: [] });
    expect(await people.db.select().from(users).where(eq(users.email, 'never@example.com'))).toEqual([]);
    const named = sql`actor_name = 'Ada Lovelace' AND action = 'sign_up' AND resource_id IS NULL`;
    expect(await people.db.select().from(auditLog).where(named)).toEqual([]);
  });

  it('is a job of the platform, planned for each hour', async () => {
    const auth = await visitor.arrive('job@example.com');
    await remove(auth.token, auth.email);
    const deletedAt = new Date(Date.now() - GRACE_MS - 1000);
    await people.db.update(users).set({ deletedAt }).where(eq(users.id, auth.user_id));
    const { rows } = await people.db.execute(sql`SELECT cron FROM pgboss.schedule WHERE name = ${PURGE_QUEUE}`);
    expect(rows).toEqual([{ cron: '17 * * * *' }]);
    await using jobs = await Jobs.open({
      connection: { connectionString: platform.databaseUrl },
      log: pino({ level: 'silent' }),
    });
    jobs.define(PURGE_QUEUE, { deadlineMs: 1000 }, async () => undefined);
    await jobs.enqueue(people.db, PURGE_QUEUE, {});
    await until('the last mail is sent', async () => (await visitor.mailsTo(auth.email)).includes('account_deleted'));
    expect(await people.db.select().from(users).where(eq(users.id, auth.user_id))).toEqual([]);
  });
});
