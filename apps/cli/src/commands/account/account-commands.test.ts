import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { SYSTEM } from '@wrenn/control-plane/access/actor';
import { createAdmin } from '@wrenn/control-plane/admin/administrators';
import { Passwords } from '@wrenn/control-plane/identity/passwords';
import { Browser } from '@wrenn/control-plane/testing/browser';
import { GithubDouble } from '@wrenn/control-plane/testing/github-double';
import { TestPeople } from '@wrenn/control-plane/testing/test-people';
import { TestPlatform } from '@wrenn/control-plane/testing/test-platform';
import { PASSWORD, Visitor } from '@wrenn/control-plane/testing/visitor';
import { Secret, TOTP } from 'otpauth';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

const WRENN = join(import.meta.dirname, '../../../bin/wrenn');

// Twenty programs after each other are no sign of a fault on a machine that is busy.
vi.setConfig({ testTimeout: 300_000 });

let platform: TestPlatform;
let people: TestPeople;
let github: GithubDouble;
let homes: string;
beforeAll(async () => {
  github = await GithubDouble.start();
  platform = await TestPlatform.start({
    OAUTH_GITHUB_CLIENT_ID: github.clientId,
    OAUTH_GITHUB_CLIENT_SECRET: github.clientSecret,
    OAUTH_GITHUB_URL: github.url,
    OAUTH_GITHUB_API_URL: github.url,
  });
  people = await TestPeople.of(platform);
  homes = await mkdtemp(join(tmpdir(), 'wrenn-homes-'));
  await createAdmin(
    people.db,
    { email: 'root@example.com', name: 'Root', passwordHash: await new Passwords().hash(PASSWORD) },
    SYSTEM,
  );
  await as('root', ['login', '--email', 'root@example.com', '--password-stdin'], PASSWORD);
});
afterAll(async () => {
  await people?.[Symbol.asyncDispose]();
  await platform?.[Symbol.asyncDispose]();
  await github?.[Symbol.asyncDispose]();
  await rm(homes, { recursive: true, force: true });
});

/** Starts a command as one person, who has logins of their own. */
function start(who: string, args: readonly string[], env: Record<string, string> = {}) {
  const home = join(homes, who);
  return spawn(WRENN, args, {
    env: { PATH: process.env.PATH, HOME: home, WRENN_DIR: home, WRENN_BASE_URL: platform.baseUrl, ...env },
  });
}

async function finish(child: ReturnType<typeof start>) {
  const [stdout, stderr, [status]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  return { status, stdout: stdout.trimEnd(), stderr: stderr.trimEnd() };
}

async function as(who: string, args: readonly string[], input = '', env: Record<string, string> = {}) {
  const child = start(who, args, env);
  child.stdin.on('error', () => undefined);
  child.stdin.end(`${input}\n`);
  return finish(child);
}

/** Signs up, activates with what the administrator sees, and is logged in. */
async function arrive(who: string, ...more: string[]): Promise<string> {
  const email = `${who}@example.com`;
  await as(who, ['signup', '--email', email, '--name', who, '--password-stdin', ...more], PASSWORD);
  const token = await as('root', ['admin', 'mails', '--to', email, '--kind', 'activation', '--token']);
  const activated = await as(who, ['activate', token.stdout]);
  expect(activated, JSON.stringify(token)).toMatchObject({ status: 0, stdout: `logged in as ${who} <${email}>` });
  return email;
}

async function json(who: string, args: readonly string[]) {
  const { stdout, stderr } = await as(who, [...args, '--json']);
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}

describe('an account', () => {
  it('begins, logs out and in again, and ends everywhere', async () => {
    const email = await arrive('ada');
    expect(await json('ada', ['whoami'])).toMatchObject({ email, role: 'owner', is_admin: false, has_password: true });
    expect(await as('ada', ['logout'])).toMatchObject({ status: 0, stdout: 'logged out' });
    expect(await as('ada', ['whoami'])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('You are not logged in'),
    });
    const wrong = await as('ada', ['login', '--email', email, '--password-stdin'], 'something else');
    expect(wrong).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('e-mail address or the password is wrong'),
    });
    await as('ada', ['login', '--email', email, '--password-stdin'], PASSWORD);
    await as('ada-elsewhere', ['login', '--email', email, '--password-stdin'], PASSWORD);
    expect(await json('ada', ['account', 'sessions'])).toHaveLength(2);
    await as('ada', ['account', 'sessions', 'revoke']);
    expect((await as('ada-elsewhere', ['whoami'])).status).toBe(1);
    expect((await as('ada', ['account', 'rename', 'Ada Lovelace'])).stdout).toBe('Ada Lovelace');
    expect(await json('ada', ['whoami'])).toMatchObject({ name: 'Ada Lovelace' });
  });

  it('gets a new password with the token of a mail', async () => {
    const email = await arrive('forgetful');
    await as('forgetful', ['account', 'reset-password', '--email', email]);
    const { stdout } = await as('root', ['admin', 'mails', '--to', email, '--kind', 'password_reset', '--token']);
    const reset = await as(
      'forgetful',
      ['account', 'reset-password', '--token', stdout, '--password-stdin'],
      'a new one 123',
    );
    expect(reset).toMatchObject({ status: 0 });
    expect((await as('forgetful', ['whoami'])).status).toBe(1);
    const login = await as('forgetful', ['login', '--email', email, '--password-stdin'], 'a new one 123');
    expect(login.status).toBe(0);
  });

  it('asks for a second factor where it is on', async () => {
    const email = await arrive('careful');
    const { api, token } = await tokenOf('careful');
    const { body } = await api('/v1/me/two-factor', {}, token);
    const totp = new TOTP({ secret: Secret.fromBase32(body.secret) });
    const confirmed = await api('/v1/me/two-factor/confirm', { code: totp.generate() }, token);
    const [recovery] = confirmed.body.recovery_codes;
    const login = ['login', '--email', email, '--password-stdin'];
    expect((await as('careful', login, PASSWORD)).stderr).toContain('--code');
    expect((await as('careful', [...login, '--code', '000000'], PASSWORD)).status).toBe(1);
    expect((await as('careful', [...login, '--code', recovery], PASSWORD)).status).toBe(0);
    expect((await as('careful', [...login, '--code', recovery], PASSWORD)).status).toBe(1);
    const off = await as('careful', ['account', 'two-factor', 'off', '--code', confirmed.body.recovery_codes[1]]);
    expect(off).toMatchObject({ status: 0, stdout: 'the second factor is off' });
  });

  it('is deleted with its address as proof, and brought back by an administrator', async () => {
    const email = await arrive('leaver');
    expect((await as('leaver', ['account', 'delete', '--confirm', 'other@example.com'])).status).toBe(1);
    expect(await as('leaver', ['account', 'delete', '--confirm', email])).toMatchObject({ status: 0 });
    const login = ['login', '--email', email, '--password-stdin'];
    expect((await as('leaver', login, PASSWORD)).stderr).toContain('switched off');
    expect((await as('root', ['admin', 'restore', email])).stdout).toBe(`${email} is active`);
    expect((await as('leaver', login, PASSWORD)).status).toBe(0);
  });
});

describe('a team', () => {
  it('is joined by invitation, changes hands, and loses who is removed', async () => {
    await arrive('grace');
    const boss = await arrive('boss');
    const teamId = (await as('boss', ['team', 'create', 'research'])).stdout;
    expect(teamId).toMatch(/^team-/);
    const { stdout: token } = await as('boss', ['team', 'invite', '--role', 'admin', '--expires', '2h']);
    expect((await as('grace', ['team', 'join', token])).stdout).toBe(`you are admin of research (${teamId})`);
    expect((await as('root', ['team', 'join', token])).stderr).toContain('not valid any more');
    expect(await json('grace', ['whoami'])).toMatchObject({ team_id: teamId, role: 'admin' });
    expect((await json('boss', ['team', 'members'])).map(({ role }: { role: string }) => role).sort()).toEqual([
      'admin',
      'owner',
    ]);
    expect((await as('grace', ['team', 'remove', boss])).stderr).toContain('Transfer the ownership first');
    await as('boss', ['team', 'transfer', 'grace@example.com']);
    await as('grace', ['team', 'role', boss, 'member']);
    expect((await as('boss', ['team', 'rename', 'mine'])).stderr).toContain('This needs the role');
    await as('grace', ['team', 'remove', boss]);
    const { stderr } = await as('boss', ['ls']);
    expect(stderr).toContain('You are in no team, and this needs one.');
    const [own] = await json('boss', ['team', 'ls']);
    expect((await as('boss', ['team', 'use', own.name])).stdout).toBe(`${own.name} (${own.id})`);
    expect((await as('boss', ['ls'])).status).toBe(0);
    expect((await as('grace', ['team', 'delete', teamId])).stdout).toBe(teamId);
  });
});

describe('a key', () => {
  it('does what its scopes say, until it is revoked', async () => {
    await arrive('coder');
    const create = ['key', 'create', 'reader', '--scope', 'capsules:read', '--expires', '7'];
    const { stdout: key } = await as('coder', create);
    expect(key).toMatch(/^wrn_[0-9a-f]{40}$/);
    const env = { WRENN_API_KEY: key };
    expect((await as('nobody', ['ls'], '', env)).status).toBe(0);
    expect((await as('nobody', ['create'], '', env)).stderr).toContain('capsules:write');
    const [{ id, scopes }] = await json('coder', ['key', 'ls']);
    expect(scopes).toEqual(['capsules:read']);
    await as('coder', ['key', 'revoke', id]);
    expect((await as('nobody', ['ls'], '', env)).stderr).toContain('no valid credential');
    const entries = await json('coder', ['audit', '--resource', 'api_key']);
    expect(entries.map(({ action }: { action: string }) => action)).toEqual(['revoke', 'create']);
  });
});

describe('a channel', () => {
  it('is made, listed and removed, and shows its secret once', async () => {
    await arrive('listener');
    const config = ['--config', 'url=https://hooks.example.com/x', '--event', 'capsule.error'];
    const made = await as('listener', ['channel', 'create', 'alerts', 'webhook', ...config]);
    expect(made.stderr).toMatch(/not shown again: [0-9a-f]{64}/);
    expect(await json('listener', ['channel', 'ls'])).toMatchObject([{ name: 'alerts', events: ['capsule.error'] }]);
    expect(await as('listener', ['channel', 'rm', 'alerts'])).toMatchObject({ status: 0, stdout: made.stdout });
    expect((await as('listener', ['channel', 'test', 'alerts'])).stderr).toContain('There is no channel alerts');
  });
});

describe('a login through a provider', () => {
  it('goes through a browser and back to the command', async () => {
    github.account = {
      id: 7,
      login: 'octo',
      name: 'Octo',
      emails: [{ email: 'octo@example.com', primary: true, verified: true }],
    };
    const { pageOf, result } = openInBrowser(['signup', '--provider', 'github']);
    const end = await new Browser().visit(await pageOf, ({ hostname, port }) => isCommand(hostname, port));
    // Whoever knows the port alone brings nothing.
    expect((await fetch(new URL('/callback?code=x&state=y', end.url))).status).toBe(404);
    expect(await (await fetch(end.url)).text()).toContain('go back to the terminal');
    expect(await result).toMatchObject({ status: 0, stdout: expect.stringContaining('Octo <octo@example.com>') });
    expect(await json('octo', ['whoami'])).toMatchObject({ providers: ['github'], has_password: false });
  });

  it('says what else there is when the provider is not set up', async () => {
    const { status, stderr } = await as('octo', ['login', '--provider', 'gitlab']);
    expect({ status, stderr }).toMatchObject({ status: 1, stderr: expect.stringContaining('It takes: github') });
  });

  const isCommand = (hostname: string, port: string) =>
    hostname === '127.0.0.1' && ![platform.baseUrl, github.url].some((url) => new URL(url).port === port);

  function openInBrowser(args: readonly string[]) {
    const child = start('octo', args);
    const page = Promise.withResolvers<string>();
    let said = '';
    child.stderr.on('data', (data: Buffer) => {
      said += data;
      const [url] = /http\S+cli_challenge=\S+/.exec(said) ?? [];
      if (url) page.resolve(url);
    });
    const result = finish(child);
    void result.then(({ stderr }) => page.reject(new Error(`no page was named: ${stderr}`)));
    return { pageOf: page.promise, result };
  }
});

async function tokenOf(who: string) {
  const logins = JSON.parse(await readFile(join(homes, who, '.config/wrenn/logins.json'), 'utf8'));
  const api = (path: string, body: object, token: string) =>
    new Visitor(platform, people).call(path, { json: body, token });
  return { api, token: logins[platform.baseUrl].token as string };
}
