import { randomBytes } from 'node:crypto';
import type { AuthBody } from '@wrenn/protocol/rest/auth';
import { and, eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import { oneTimeTokens, passkeys, users } from '../database/people-schema.ts';
import { untilBlocked } from '../testing/blocked.ts';
import { type Deviation, SoftwareAuthenticator } from '../testing/software-authenticator.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { Visitor } from '../testing/visitor.ts';

let platform: TestPlatform;
let people: TestPeople;
let visitor: Visitor;
beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
  visitor = new Visitor(platform, people);
});
afterAll(async () => {
  await people?.[Symbol.asyncDispose]();
  await platform?.[Symbol.asyncDispose]();
});

const arrive = (): Promise<AuthBody> => visitor.arrive(`ada-${randomBytes(6).toString('hex')}@example.com`);

async function creationOptions({ token }: AuthBody) {
  const { status, body } = await visitor.call('/v1/me/passkeys/options', { method: 'POST', token });
  expect(status).toBe(200);
  return body.options;
}

async function register(auth: AuthBody, device: SoftwareAuthenticator, name = 'Telephone', deviation?: Deviation) {
  const credential = device.create(await creationOptions(auth), deviation);
  return visitor.call('/v1/me/passkeys', { json: { name, credential }, token: auth.token });
}

async function loginOptions() {
  const { status, body } = await visitor.call('/v1/auth/passkey/options', { method: 'POST' });
  expect(status).toBe(200);
  return body.options;
}

const verify = (credential: unknown) => visitor.call('/v1/auth/passkey/verify', { json: { credential } });

async function logIn(device: SoftwareAuthenticator, deviation?: Deviation) {
  return verify(device.get(await loginOptions(), deviation));
}

/** Somebody with a passkey. */
async function arriveWithPasskey() {
  const auth = await arrive();
  const device = new SoftwareAuthenticator(platform.baseUrl);
  const { status, body } = await register(auth, device);
  expect(status).toBe(201);
  return { auth, device, id: body.id as string };
}

const reasonOf = ({ status, body }: { status: number; body: { error: { reason: string } } }) => [
  status,
  body.error.reason,
];

describe('making a passkey', () => {
  it('asks for one that tells who logs in and verifies its user, and lists it then', async () => {
    const auth = await arrive();
    const options = await creationOptions(auth);
    expect(options).toMatchObject({
      rp: { id: '127.0.0.1' },
      user: { name: auth.email, displayName: auth.name },
      attestation: 'none',
      authenticatorSelection: { residentKey: 'required', userVerification: 'required' },
    });
    const device = new SoftwareAuthenticator(platform.baseUrl);
    const { status, body } = await register(auth, device, ' My telephone ');
    expect(status).toBe(201);
    expect(body).toMatchObject({ name: 'My telephone', last_used_at: null });
    expect((await visitor.call('/v1/me/passkeys', { token: auth.token })).body).toEqual([body]);
    expect((await visitor.call('/v1/me', { token: auth.token })).body.passkeys).toBe(1);
    // The same device is not asked for another one.
    const { excludeCredentials } = await creationOptions(auth);
    expect(excludeCredentials).toMatchObject([{ transports: ['hybrid', 'internal'], type: 'public-key' }]);
  });

  it.each<[string, Deviation]>([
    ['of another page', { origin: 'https://evil.example.com' }],
    ['for another host', { rpId: 'evil.example.com' }],
    ['without its user having been verified', { isVerified: false }],
    ['for a challenge that nobody gave', { challenge: randomBytes(32).toString('base64url') }],
  ])('%s is refused', async (_what, deviation) => {
    const device = new SoftwareAuthenticator(platform.baseUrl);
    expect(reasonOf(await register(await arrive(), device, 'x', deviation))).toEqual([401, 'passkey_refused']);
  });

  it('takes each challenge once, and only from whom it was for', async () => {
    const [ada, mallory] = [await arrive(), await arrive()];
    const device = new SoftwareAuthenticator(platform.baseUrl);
    const credential = device.create(await creationOptions(ada));
    const add = (auth: AuthBody) => visitor.call('/v1/me/passkeys', { json: { credential }, token: auth.token });
    expect(reasonOf(await add(mallory))).toEqual([401, 'passkey_refused']);
    const again = device.create(await creationOptions(ada));
    const both = await Promise.all(
      [1, 2].map(() => visitor.call('/v1/me/passkeys', { json: { credential: again }, token: ada.token })),
    );
    expect(both.map(({ status }) => status).sort()).toEqual([201, 401]);
    // A challenge of a login is none for this.
    const other = device.create({ ...(await creationOptions(ada)), challenge: (await loginOptions()).challenge });
    expect(reasonOf(await visitor.call('/v1/me/passkeys', { json: { credential: other }, token: ada.token }))).toEqual([
      401,
      'passkey_refused',
    ]);
  });

  it('refuses what is no credential, in the form of every error', async () => {
    const auth = await arrive();
    const device = new SoftwareAuthenticator(platform.baseUrl);
    const credential = device.create(await creationOptions(auth));
    for (const response of [
      {},
      { ...credential.response, clientDataJSON: 'e30' },
      { ...credential.response, clientDataJSON: 'bnVsbA' },
      { ...credential.response, clientDataJSON: '' },
      { ...credential.response, clientDataJSON: 'not base64url!' },
      { ...credential.response, attestationObject: '' },
    ]) {
      const json = { credential: { ...credential, response } };
      const { status, body } = await visitor.call('/v1/me/passkeys', { json, token: auth.token });
      expect([400, 401]).toContain(status);
      expect(body.error.remedy).toBeTruthy();
    }
    const garbled = { ...credential.response, attestationObject: randomBytes(200).toString('base64url') };
    const fresh = device.create(await creationOptions(auth));
    const json = {
      credential: { ...fresh, response: { ...fresh.response, attestationObject: garbled.attestationObject } },
    };
    expect(reasonOf(await visitor.call('/v1/me/passkeys', { json, token: auth.token }))).toEqual([
      401,
      'passkey_refused',
    ]);
  });

  it('is refused once the account has too many, also of two that are made at the same moment', async () => {
    const auth = await arrive();
    const old = { userId: auth.user_id, name: 'old', publicKey: randomBytes(8), counter: 0, transports: [] };
    const rows = Array.from({ length: 49 }, (_, n) => ({ ...old, id: `${auth.user_id}-${n}`, credentialId: `${n}` }));
    await people.db.insert(passkeys).values(rows);
    const { made } = await people.db.transaction(async (tx) => {
      await tx.select().from(users).where(eq(users.id, auth.user_id)).for('update');
      const begun = [];
      for (const count of [1, 2]) {
        begun.push(register(auth, new SoftwareAuthenticator(platform.baseUrl)));
        await untilBlocked(people.db, count);
      }
      return { made: begun };
    });
    expect((await Promise.all(made)).map(({ status }) => status).sort()).toEqual([201, 400]);
  });

  it('is for people only', async () => {
    for (const path of ['/v1/me/passkeys', '/v1/me/passkeys/options']) {
      expect(reasonOf(await platform.call(path, { method: 'POST' }))).toEqual([403, 'login_required']);
    }
  });
});

describe('a login with a passkey', () => {
  it('needs nothing else, and counts as a use', async () => {
    const { auth, device, id } = await arriveWithPasskey();
    const options = await loginOptions();
    expect(options).toMatchObject({ rpId: '127.0.0.1', userVerification: 'required' });
    expect(options.allowCredentials ?? []).toEqual([]);
    const { status, body, headers } = await verify(device.get(options));
    expect(status).toBe(200);
    expect(body).toMatchObject({ user_id: auth.user_id, team_id: auth.team_id, role: 'owner' });
    expect(headers.get('set-cookie')).toMatch(/^wrenn_session=/);
    const [passkey] = (await visitor.call('/v1/me/passkeys', { token: body.token })).body;
    expect(passkey).toMatchObject({ id, last_used_at: expect.any(String) });
  });

  it('asks for no second factor, and is not kept out by a lock', async () => {
    const { auth, device } = await arriveWithPasskey();
    await people.db
      .update(users)
      .set({ totpSecret: 'x', totpConfirmedAt: new Date(), lockedUntil: new Date(Date.now() + 60_000) })
      .where(eq(users.id, auth.user_id));
    expect((await logIn(device)).status).toBe(200);
  });

  it.each<[string, Deviation]>([
    ['of another page', { origin: 'https://evil.example.com' }],
    ['for another host', { rpId: 'evil.example.com' }],
    ['without its user having been verified', { isVerified: false }],
    ['for a challenge that nobody gave', { challenge: randomBytes(32).toString('base64url') }],
    ['with a count that it gave before', { counter: 1 }],
    ['that does not count any more', { counter: 0 }],
    ['of somebody else', { userHandle: Buffer.from('usr-0000000000000000000000000').toString('base64url') }],
    ['of nobody', { userHandle: '' }],
  ])('%s is refused', async (_what, deviation) => {
    const { device } = await arriveWithPasskey();
    expect(reasonOf(await logIn(device, deviation))).toEqual([401, 'passkey_refused']);
    expect((await logIn(device)).status).toBe(200);
  });

  it('is refused with a signature of another passkey', async () => {
    const [ada, mallory] = [await arriveWithPasskey(), await arriveWithPasskey()];
    const options = await loginOptions();
    const credential = ada.device.get(options);
    const { signature } = mallory.device.get(options).response;
    const forged = { ...credential, response: { ...credential.response, signature } };
    expect(reasonOf(await verify(forged))).toEqual([401, 'passkey_refused']);
  });

  it('takes an answer once, however often it comes at the same moment', async () => {
    const { device } = await arriveWithPasskey();
    const credential = device.get(await loginOptions());
    const answers = await Promise.all([1, 2, 3, 4].map(() => verify(credential)));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 401, 401, 401]);
    expect(reasonOf(await verify(credential))).toEqual([401, 'passkey_refused']);
  });

  it('takes one of two answers with one count', async () => {
    const { device } = await arriveWithPasskey();
    const [one, two] = [await loginOptions(), await loginOptions()];
    const answers = await Promise.all([one, two].map((options) => verify(device.get(options, { counter: 7 }))));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 401]);
  });

  it('works again and again with an authenticator that does not count', async () => {
    const auth = await arrive();
    const device = new SoftwareAuthenticator(platform.baseUrl);
    expect((await register(auth, device, 'Key chain', { counter: 0 })).status).toBe(201);
    for (let n = 0; n < 3; n += 1) expect((await logIn(device, { counter: 0 })).status).toBe(200);
  });

  it('is refused when it is late', async () => {
    const { device } = await arriveWithPasskey();
    const options = await loginOptions();
    await people.db
      .update(oneTimeTokens)
      .set({ expiresAt: new Date(Date.now() - 1000) })
      .where(eq(oneTimeTokens.purpose, 'passkey_login'));
    expect(reasonOf(await verify(device.get(options)))).toEqual([401, 'passkey_refused']);
  });

  it('is refused for an account that is switched off, and written down', async () => {
    const { auth, device } = await arriveWithPasskey();
    await people.db.update(users).set({ status: 'disabled' }).where(eq(users.id, auth.user_id));
    expect(reasonOf(await logIn(device))).toEqual([403, 'account_deactivated']);
    const entries = await people.db
      .select()
      .from(auditLog)
      .where(and(eq(auditLog.actorId, auth.user_id), eq(auditLog.status, 'error')));
    expect(entries).toMatchObject([{ action: 'login', metadata: { method: 'passkey', reason: 'deactivated' } }]);
  });
});

describe('keeping passkeys', () => {
  const remove = (auth: AuthBody, id: string) =>
    visitor.call(`/v1/me/passkeys/${id}`, { method: 'DELETE', token: auth.token });

  it('renames and removes them, and writes that down', async () => {
    const { auth, device, id } = await arriveWithPasskey();
    const renamed = await visitor.call(`/v1/me/passkeys/${id}`, {
      method: 'PATCH',
      json: { name: 'Old telephone' },
      token: auth.token,
    });
    expect([renamed.status, renamed.body.name]).toEqual([200, 'Old telephone']);
    expect((await remove(auth, id)).status).toBe(204);
    expect(reasonOf(await remove(auth, id))).toEqual([404, 'not_found']);
    expect((await visitor.call('/v1/me/passkeys', { token: auth.token })).body).toEqual([]);
    expect(reasonOf(await logIn(device))).toEqual([401, 'passkey_refused']);
    const entries = await people.db
      .select()
      .from(auditLog)
      .where(and(eq(auditLog.resourceId, id), eq(auditLog.status, 'success')))
      .orderBy(auditLog.createdAt);
    expect(entries.map(({ action, scope }) => `${scope}:${action}`)).toEqual([
      'platform:create',
      'platform:rename',
      'platform:delete',
    ]);
  });

  it("leaves other people's alone", async () => {
    const [ada, mallory] = [await arriveWithPasskey(), await arrive()];
    expect(reasonOf(await remove(mallory, ada.id))).toEqual([404, 'not_found']);
    const renamed = await visitor.call(`/v1/me/passkeys/${ada.id}`, {
      method: 'PATCH',
      json: { name: 'Mine' },
      token: mallory.token,
    });
    expect(renamed.status).toBe(404);
    expect((await logIn(ada.device)).status).toBe(200);
  });

  it('keeps the last way to log in, also of two that are removed at the same moment', async () => {
    const { auth, id } = await arriveWithPasskey();
    await people.db.update(users).set({ passwordHash: null }).where(eq(users.id, auth.user_id));
    expect(reasonOf(await remove(auth, id))).toEqual([400, 'last_login_method']);
    const second = await register(auth, new SoftwareAuthenticator(platform.baseUrl), 'Second');
    const { removals } = await people.db.transaction(async (tx) => {
      await tx.select().from(users).where(eq(users.id, auth.user_id)).for('update');
      const begun = [id, second.body.id].map((each) => remove(auth, each));
      await untilBlocked(people.db, 2);
      return { removals: begun };
    });
    const statuses = (await Promise.all(removals)).map(({ status }) => status);
    expect(statuses.sort()).toEqual([204, 400]);
    expect(await people.db.select().from(passkeys).where(eq(passkeys.userId, auth.user_id))).toHaveLength(1);
  });
});
