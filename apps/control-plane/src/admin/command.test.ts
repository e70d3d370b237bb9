import { Readable, Writable } from 'node:stream';
import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { teamMembers, teams, users } from '../database/people-schema.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { runAdminCommand } from './command.ts';

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

async function run(args: string[], input = '') {
  const out: string[] = [];
  const err: string[] = [];
  const into = (chunks: string[]) =>
    new Writable({
      write: (chunk, _encoding, done) => {
        chunks.push(String(chunk));
        done();
      },
    });
  const env = { DATABASE_URL: platform.databaseUrl, WRENN_DIR: '/nonexistent', CP_PUBLIC_URL: 'https://wrenn.example' };
  const code = await runAdminCommand(args, {
    ...{ stdin: Readable.from([input]), stdout: into(out), stderr: into(err), env },
  });
  return { code, out: out.join(''), err: err.join('') };
}

const call = (path: string, json: object) => platform.call(path, { json, headers: { 'x-api-key': '' } });

it('makes administrators, the first of whom owns the team that the platform began with', async () => {
  const made = await run(['create', 'ada@example.com', '--name', 'Ada', '--password-stdin'], 'correct horse\n');
  expect(made).toMatchObject({ code: 0, err: '' });
  const login = await call('/v1/auth/login', { email: 'ada@example.com', password: 'correct horse' });
  expect(login).toMatchObject({ status: 200, body: { is_admin: true, role: 'owner', name: 'Ada' } });
  // The key of the machine is that team's.
  const own = await platform.call('/v1/teams', { headers: { 'x-api-key': login.body.token } });
  expect(own.body).toMatchObject([{ name: 'default', role: 'owner' }]);

  const second = await run(['create', 'grace@example.com']);
  expect(second.code).toBe(0);
  const token = /^https:\/\/wrenn\.example\/reset-password\?token=([\w-]+)\n$/.exec(second.out)?.[1];
  const confirmed = await call('/v1/me/password/reset/confirm', { token, new_password: 'battery staple' });
  expect(confirmed.status).toBe(204);
  expect(await call('/v1/auth/login', { email: 'grace@example.com', password: 'battery staple' })).toMatchObject({
    status: 200,
    body: { is_admin: true, name: 'grace', role: 'owner' },
  });
  const owners = await people.db
    .select({ userId: teamMembers.userId })
    .from(teamMembers)
    .innerJoin(teams, eq(teams.id, teamMembers.teamId))
    .where(eq(teams.name, 'default'));
  expect(owners).toEqual([{ userId: login.body.user_id }]);
  expect(await run(['create', 'ADA@example.com'])).toMatchObject({ code: 1, err: expect.stringContaining('exists') });
});

it('grants and revokes, but not from the last one', async () => {
  await people.db.update(users).set({ isAdmin: false });
  const user = await people.addUser({ name: 'Mia' });
  expect(await run(['grant', user.email])).toMatchObject({ code: 0, err: '' });
  expect((await run(['list'])).out).toBe(`${user.email}\tMia\tactive\n`);
  expect(await run(['revoke', user.email])).toMatchObject({ code: 1, err: expect.stringContaining('last') });
  const other = await people.addUser();
  expect((await run(['grant', other.email])).code).toBe(0);
  expect((await run(['revoke', user.email])).code).toBe(0);
  expect((await run(['list'])).out).toContain(other.email);
  expect((await run(['list'])).out).not.toContain(user.email);
  expect((await run(['grant', 'nobody@example.com'])).code).toBe(1);
});

it.each([
  [[]],
  [['create']],
  [['create', 'no-address']],
  [['list', 'x@example.com']],
  [['bogus', 'x@example.com']],
  [['list', '--bogus']],
])('says how it is used for %j', async (args) => {
  expect((await run(args)).code).toBe(2);
});
