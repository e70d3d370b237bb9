import { KEY_SCOPES, type KeyScope } from '@wrenn/protocol/rest/api-keys';
import { errorResponseSchema } from '@wrenn/protocol/rest/error';
import { TEAM_ROLES, type TeamRole } from '@wrenn/protocol/rest/teams';
import { until } from '@wrenn/testing/until';
import { eq } from 'drizzle-orm';
import { type JWTHeaderParameters, SignJWT, UnsecuredJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { apiKeys, sessions, teamMembers, teams, users } from '../database/people-schema.ts';
import { type ApiOperation, operationsOf } from '../testing/api-operations.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { PERMISSIONS, type Rule } from './permissions.ts';

/** What a request carries, and who that is by the rules. */
interface Credential {
  readonly headers: Record<string, string>;
  /** Only tried where this scope is needed. */
  readonly about?: KeyScope;
  readonly is:
    | { readonly kind: 'refused'; readonly status: number; readonly reason: string }
    /** Refused as it is for what changes something; else it is a person. */
    | { readonly kind: 'cookie-from-elsewhere'; readonly role: TeamRole }
    | { readonly kind: 'person'; readonly role: TeamRole | undefined; readonly isAdmin?: boolean }
    | { readonly kind: 'key'; readonly role: TeamRole; readonly scopes: readonly KeyScope[] | undefined };
}

type Verdict = 'passes' | { readonly status: number; readonly reason: string };

const refused = (reason = 'unauthorized', status = 401): Credential['is'] => ({ kind: 'refused', status, reason });
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const apiKey = (key: string) => ({ 'x-api-key': key });
const cookie = (token: string) => ({ cookie: `wrenn_session=${token}` });
const MINUTE_MS = 60_000;

let platform: TestPlatform;
let people: TestPeople;
let operations: ApiOperation[];
let teamId: string;
const credentials = new Map<string, Credential>();

beforeAll(async () => {
  platform = await TestPlatform.start({ WRENN_RATE_LIMIT_FACTOR: '0' });
  people = await TestPeople.of(platform);
  operations = operationsOf((await platform.call('/openapi.json')).body);
  teamId = await people.addTeam();
  await addPeople();
  await addKeys();
  await addWrongTokens();
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

async function addPeople(): Promise<void> {
  for (const role of TEAM_ROLES) {
    const { token } = await people.logInNew(teamId, role);
    const is = { kind: 'person', role } as const;
    credentials.set(`token of the ${role}`, { headers: bearer(token), is });
    credentials.set(`cookie of the ${role}, from a page of ours`, {
      headers: { ...cookie(token), origin: platform.baseUrl },
      is,
    });
    const elsewhere = { kind: 'cookie-from-elsewhere', role } as const;
    credentials.set(`cookie of the ${role}, from another site`, {
      headers: { ...cookie(token), origin: 'https://evil.example' },
      is: elsewhere,
    });
    credentials.set(`cookie of the ${role}, from nowhere`, { headers: cookie(token), is: elsewhere });
  }
  const alone = await people.addUser();
  const outside = { kind: 'person', role: undefined } as const;
  credentials.set('token of a user without team', {
    headers: bearer(await people.logIn(alone, undefined)),
    is: outside,
  });
  credentials.set('token for a team that one is not in', {
    headers: bearer(await people.logIn(alone, teamId)),
    is: outside,
  });
  const removed = await people.logInNew(teamId, 'admin');
  await people.db.delete(teamMembers).where(eq(teamMembers.userId, removed.user.id));
  credentials.set('token of a removed member', { headers: bearer(removed.token), is: outside });
  const gone = await people.addTeam();
  const left = await people.logInNew(gone, 'owner');
  await people.db.update(teams).set({ deletedAt: new Date() }).where(eq(teams.id, gone));
  credentials.set('token for a deleted team', { headers: bearer(left.token), is: outside });
  const disabled = await people.logInNew(teamId, 'admin');
  await people.db.update(users).set({ status: 'disabled' }).where(eq(users.id, disabled.user.id));
  credentials.set('token of a disabled user', {
    headers: bearer(disabled.token),
    is: refused('account_deactivated', 403),
  });
  const admin = await people.addUser({ isAdmin: true });
  credentials.set('token of an administrator of the platform', {
    headers: bearer(await people.logIn(admin, undefined)),
    is: { kind: 'person', role: undefined, isAdmin: true },
  });
}

async function addKeys(): Promise<void> {
  const add = async (name: string, is: Credential['is'], ...args: Parameters<TestPeople['addKey']>) => {
    const { key } = await people.addKey(...args);
    credentials.set(name, { headers: apiKey(key), is });
    return key;
  };
  const addScoped = async (name: string, about: KeyScope, scopes: KeyScope[]) => {
    const { key } = await people.addKey(teamId, { scopes });
    credentials.set(name, { headers: apiKey(key), about, is: { ...ofTeam, scopes } });
  };
  const ofTeam = { kind: 'key', role: 'admin' } as const;
  for (const scope of KEY_SCOPES) {
    await addScoped(`key with ${scope} alone`, scope, [scope]);
    await addScoped(
      `key with all but ${scope}`,
      scope,
      KEY_SCOPES.filter((other) => other !== scope),
    );
  }
  const all = await add('key with all scopes', { ...ofTeam, scopes: undefined }, teamId);
  const e2b = all.replace('wrn_', 'e2b_');
  credentials.set('the same key spelled e2b_', { headers: apiKey(e2b), is: { ...ofTeam, scopes: undefined } });
  credentials.set('the same key as bearer', { headers: bearer(all), is: { ...ofTeam, scopes: undefined } });
  credentials.set('a wrong key before a right token', {
    headers: { ...bearer(all), ...apiKey(`wrn_${'0'.repeat(40)}`) },
    is: refused(),
  });
  for (const role of ['admin', 'member'] as const) {
    const { user } = await people.logInNew(teamId, role);
    await add(`own key of a ${role}`, { kind: 'key', role, scopes: undefined }, teamId, { userId: user.id });
  }
  await add('expired key', refused(), teamId, { expiresAt: new Date(Date.now() - MINUTE_MS) });
  await add('revoked key', refused(), teamId, { revokedAt: new Date() });
  const removed = await people.addUser();
  await add('own key of a removed member', refused(), teamId, { userId: removed.id });
  const disabled = await people.logInNew(teamId, 'member');
  await people.db.update(users).set({ status: 'disabled' }).where(eq(users.id, disabled.user.id));
  await add('own key of a disabled user', refused(), teamId, { userId: disabled.user.id });
  const gone = await people.addTeam();
  await add('key of a deleted team', refused(), gone);
  await people.db.update(teams).set({ deletedAt: new Date() }).where(eq(teams.id, gone));
  const [kept] = await people.db.select().from(apiKeys).where(eq(apiKeys.teamId, teamId));
  credentials.set('hash of a key', { headers: apiKey(kept?.keyHash ?? ''), is: refused() });
}

async function addWrongTokens(): Promise<void> {
  const is = refused();
  const add = (name: string, headers: Record<string, string>) => credentials.set(name, { headers, is });
  add('nothing', {});
  add('a key of no form', apiKey('nonsense'));
  add('a key of all zeros', apiKey(`wrn_${'0'.repeat(40)}`));
  add('an empty key', apiKey(''));
  add('a bearer of no form', bearer('a.b.c'));
  add('another scheme', { authorization: 'Basic Zm9vOmJhcg==' });

  const { user, token } = await people.logInNew(teamId, 'admin');
  const [session] = await people.db.select().from(sessions).where(eq(sessions.userId, user.id));
  const claims = { sid: session?.id, team_id: teamId, role: 'owner', email: user.email, name: 'x', is_admin: true };
  const signed = (
    change: (jwt: SignJWT) => SignJWT = (jwt) => jwt,
    { key = people.jwtSecret, header = { alg: 'HS256' } }: { key?: Uint8Array; header?: JWTHeaderParameters } = {},
  ) =>
    change(
      new SignJWT(claims)
        .setProtectedHeader(header)
        .setSubject(user.id)
        .setAudience('wrenn-user')
        .setIssuedAt()
        .setExpirationTime('1h'),
    ).sign(key);
  credentials.set('token that is made right', {
    headers: bearer(await signed()),
    is: { kind: 'person', role: 'admin' },
  });
  add('expired token', bearer(await signed((jwt) => jwt.setExpirationTime(Math.floor(Date.now() / 1000) - 60))));
  add('token signed by another secret', bearer(await signed(undefined, { key: Buffer.alloc(64, 1) })));
  add('token signed with another algorithm', bearer(await signed(undefined, { header: { alg: 'HS512' } })));
  add('token for another audience', bearer(await signed((jwt) => jwt.setAudience('wrenn-host'))));
  add(
    "token like a host's",
    bearer(await signed((jwt) => jwt.setAudience('host'), { header: { alg: 'HS256', typ: 'host' } })),
  );
  add('token of nobody', bearer(await signed((jwt) => jwt.setSubject('usr-nobody'))));
  const unsigned = new UnsecuredJWT(claims)
    .setSubject(user.id)
    .setAudience('wrenn-user')
    .setExpirationTime('1h')
    .encode();
  add('token without signature', bearer(unsigned));
  const [head, , tail] = token.split('.');
  const forged = Buffer.from(JSON.stringify({ ...claims, sub: user.id, aud: 'wrenn-user', exp: 9e9 })).toString(
    'base64url',
  );
  add('token with other claims', bearer(`${head}.${forged}.${tail}`));
  for (const [name, change] of [
    ['token of a revoked session', { revokedAt: new Date() }],
    ['token of an expired session', { expiresAt: new Date(Date.now() - MINUTE_MS) }],
  ] as const) {
    const other = await people.logInNew(teamId, 'admin');
    await people.db.update(sessions).set(change).where(eq(sessions.userId, other.user.id));
    add(name, bearer(other.token));
  }
}

function isOfTeams(rule: Rule): rule is Extract<Rule, { for: 'team' | 'platform-or-team' }> {
  return rule.for === 'team' || rule.for === 'platform-or-team';
}

/** What the table says. */
function verdictOf({ permission, method, spec }: ApiOperation, { is }: Credential, isUpgrade = false): Verdict {
  const rule: Rule = PERMISSIONS[permission];
  if (rule.for === 'public') return 'passes';
  // Hosts have a credential and a header of their own.
  if (rule.for === 'host') return { status: 401, reason: 'unauthorized' };
  if (is.kind === 'refused') return is;
  const changesNothing = method === 'GET' && !isUpgrade;
  if (is.kind === 'cookie-from-elsewhere' && !changesNothing) return { status: 403, reason: 'origin_refused' };
  if (is.kind === 'key' && (!isOfTeams(rule) || !rule.scope)) return { status: 403, reason: 'login_required' };
  switch (rule.for) {
    case 'account':
      return 'passes';
    case 'platform':
      return is.kind === 'person' && is.isAdmin ? 'passes' : { status: 403, reason: 'forbidden' };
    case 'platform-or-team':
    case 'team':
      if (rule.for === 'platform-or-team' && is.kind === 'person' && is.isAdmin) return 'passes';
      // Of teams that one is not in nobody learns anything.
      if (!is.role)
        return spec['x-wrenn-team-param'] ? { status: 404, reason: 'not_found' } : { status: 403, reason: 'no_team' };
      if (is.kind === 'key' && rule.scope && is.scopes && !is.scopes.includes(rule.scope)) {
        return { status: 403, reason: 'insufficient_scope' };
      }
      return rule.roles.includes(is.role) ? 'passes' : { status: 403, reason: 'insufficient_role' };
  }
}

const UNKNOWN = 'x-0000000000000000000000000';

/** The path, with the team where it is asked for, and with ids that there are not. */
function pathOf({ path, spec }: ApiOperation): string {
  return path.replaceAll(/\{(\w+)\}/g, (_, name) => (name === spec['x-wrenn-team-param'] ? teamId : UNKNOWN));
}

/**
 * Sends a request that does nothing even if it is let in: what could change something has a body that cannot be read,
 * which is looked at after the credential.
 */
async function ask(
  operation: ApiOperation,
  { headers }: Credential,
): Promise<{ status: number; reason: string | undefined }> {
  const isRead = operation.method === 'GET';
  const answer = await fetch(`${platform.baseUrl}${pathOf(operation)}`, {
    method: operation.method,
    redirect: 'manual',
    headers: { ...headers, ...(isRead ? {} : { 'content-type': 'application/json' }) },
    ...(isRead ? {} : { body: '{"' }),
  });
  const text = await answer.text();
  const isError = answer.status >= 400 && answer.headers.get('content-type')?.includes('json');
  const error = isError ? errorResponseSchema.safeParse(JSON.parse(text)).data?.error : undefined;
  return { status: answer.status, reason: error?.reason };
}

function casesOf(some: readonly ApiOperation[]) {
  return some.flatMap((operation) =>
    [...credentials]
      .filter(([, { about }]) => about === undefined || about === operation.spec['x-wrenn-scope'])
      .map((each) => ({ operation, each })),
  );
}

async function inBatches<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: 16 }, worker));
}

describe('the table of permissions', () => {
  // Thousands of requests: 10 s here, far more on a machine that is busy with other things.
  it('is what every operation answers to every credential', { timeout: 240_000 }, async () => {
    expect(operations.length).toBeGreaterThan(40);
    const wrong: string[] = [];
    const cases = casesOf(operations);
    await inBatches(cases, async ({ operation, each: [name, credential] }) => {
      const verdict = verdictOf(operation, credential);
      const { status, reason } = await until('the database answers', async () => {
        const answer = await ask(operation, credential);
        // A machine that stands still for seconds; the request changes nothing.
        return answer.reason === 'database_unavailable' ? undefined : answer;
      });
      const isRight =
        verdict === 'passes'
          ? (status < 500 || operation.path === '/ready') &&
            (operation.method === 'GET' ? status !== 401 && status !== 403 : reason === 'invalid_request')
          : status === verdict.status && reason === verdict.reason;
      if (!isRight) wrong.push(`${operation.id} with ${name}: ${status} ${reason}, not ${JSON.stringify(verdict)}`);
    });
    expect(wrong).toEqual([]);
  });

  it('holds for WebSockets', async () => {
    const wrong: string[] = [];
    const cases = casesOf(operations.filter(({ isSocket }) => isSocket));
    await inBatches(cases, async ({ operation, each: [name, credential] }) => {
      // These are asked for their credential once they are open.
      if (
        !('x-api-key' in credential.headers) &&
        !/^Bearer|wrenn_session/.test(Object.values(credential.headers).join())
      )
        return;
      const verdict = verdictOf(operation, credential, true);
      const status = await until('the database answers', async () => {
        const answered = await upgrade(pathOf(operation), credential.headers);
        return answered === 503 ? undefined : answered;
      });
      if (status !== (verdict === 'passes' ? 101 : verdict.status))
        wrong.push(`${operation.id} with ${name}: ${status}`);
    });
    expect(wrong).toEqual([]);
  });

  it('gives every scope something that a key can do, and nothing else to keys', () => {
    const rules: Rule[] = Object.values(PERMISSIONS);
    const scopes = rules.flatMap((rule) => (isOfTeams(rule) && rule.scope ? [rule.scope] : []));
    expect(new Set(scopes)).toEqual(new Set(KEY_SCOPES));
  });
});

/** @returns status of the answer; 101: it is open */
function upgrade(path: string, headers: Record<string, string>): Promise<number> {
  const socket = new WebSocket(`${platform.baseUrl.replace('http', 'ws')}${path}`, { headers });
  return new Promise((resolve, reject) => {
    socket.once('open', () => {
      socket.terminate();
      resolve(101);
    });
    socket.once('unexpected-response', (request, answer) => {
      request.destroy();
      resolve(answer.statusCode ?? 0);
    });
    socket.once('error', reject);
  });
}
