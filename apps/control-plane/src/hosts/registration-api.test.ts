import { X509Certificate } from 'node:crypto';
import { readCertificate } from '@wrenn/pki/issue';
import { makeSigningRequest } from '@wrenn/pki/signing-request';
import { and, eq, sql } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SYSTEM } from '../access/actor.ts';
import { auditLog } from '../database/audit-schema.ts';
import { hostRefreshTokens, hosts, hostTokens } from '../database/host-schema.ts';
import { oneTimeTokens, teams } from '../database/people-schema.ts';
import { TestHosts } from '../testing/test-hosts.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { Visitor } from '../testing/visitor.ts';
import { renewToken } from './create-host.ts';

let platform: TestPlatform;
let people: TestPeople;
let visitor: Visitor;
let agents: TestHosts;
let admin: string;
let nextPort = 50_100;

beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
  visitor = new Visitor(platform, people);
  agents = new TestHosts(platform);
  admin = await people.logIn(await people.addUser({ isAdmin: true }), undefined);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

const call = (path: string, token: string, json?: object, method?: string) =>
  visitor.call(path, { token, ...(json ? { json } : {}), ...(method ? { method } : {}) });
const newAddress = () => ({ address: `10.0.0.5:${nextPort++}` });

async function byocTeam() {
  const teamId = await people.addTeam();
  await people.db.update(teams).set({ isByoc: true }).where(eq(teams.id, teamId));
  return teamId;
}

async function made() {
  const { body } = await call('/v1/hosts', admin, { type: 'regular' });
  return { id: body.host.id as string, token: body.registration_token as string };
}

async function registered() {
  const { id, token } = await made();
  const { status, body } = await agents.register(token, newAddress());
  expect(status).toBe(201);
  return { id, ...(body as { token: string; refresh_token: string; cert_pem: string; ca_cert_pem: string }) };
}

const auditOf = (id: string, action: string) =>
  people.db
    .select()
    .from(auditLog)
    .where(and(eq(auditLog.resourceId, id), eq(auditLog.action, action)));

describe('POST /v1/hosts', () => {
  it('makes a pending host, with a token for an hour that is not kept', async () => {
    const { status, body, headers } = await call('/v1/hosts', admin, { type: 'regular', tags: ['gpu', 'gpu'] });
    expect(status).toBe(201);
    expect(body.host).toMatchObject({
      type: 'regular',
      status: 'pending',
      team_id: null,
      tags: ['gpu'],
      address: null,
    });
    expect(new Date(body.expires_at).getTime() - Date.now()).toBeLessThanOrEqual(3_600_000);
    expect(headers.get('cache-control')).toBe('no-store');
    // Commands take it as an argument: nothing in it may look like an option, or need quotes.
    expect(body.registration_token).toMatch(/^[\da-f]{64}$/);
    const kept = JSON.stringify([
      await people.db.select().from(hostTokens),
      await people.db.select().from(oneTimeTokens),
    ]);
    expect(kept).not.toContain(body.registration_token);
    expect(await auditOf(body.host.id, 'create')).toHaveLength(1);
    expect((await call('/v1/hosts', admin, undefined, 'POST')).body.host.type).toBe('regular');
  });

  it('lets teams make their own where an administrator allowed it, and nothing else', async () => {
    const teamId = await byocTeam();
    const plain = await people.addTeam();
    const [owner, member, stranger] = await Promise.all([
      people.logInNew(teamId, 'owner'),
      people.logInNew(teamId, 'member'),
      people.logInNew(plain, 'owner'),
    ]);
    const { key } = await people.addKey(teamId, { scopes: ['hosts:write'] });
    const byoc = { type: 'byoc' };
    const outcome = async (token: string, json: object) => {
      const { status, body } = await call('/v1/hosts', token, json);
      return status === 201 ? 201 : body.error.reason;
    };
    expect(await outcome(owner.token, byoc)).toBe(201);
    expect(await outcome(key, byoc)).toBe(201);
    expect(await outcome(admin, { ...byoc, team_id: teamId })).toBe(201);
    expect(await outcome(owner.token, { type: 'regular' })).toBe('forbidden');
    expect(await outcome(key, { type: 'regular' })).toBe('forbidden');
    expect(await outcome(member.token, byoc)).toBe('insufficient_role');
    expect(await outcome(stranger.token, byoc)).toBe('byoc_off');
    expect(await outcome(stranger.token, { ...byoc, team_id: teamId })).toBe('not_found');
    expect(await outcome(key, { ...byoc, team_id: plain })).toBe('not_found');
    expect(await outcome(admin, byoc)).toBe('no_team');
    expect(await outcome(admin, { type: 'regular', team_id: teamId })).toBe('invalid_request');
    await people.db.update(teams).set({ deletedAt: new Date() }).where(eq(teams.id, teamId));
    expect(await outcome(admin, { ...byoc, team_id: teamId })).toBe('not_found');
  });

  it('shows administrators every host, teams their own, and nobody a deleted one', async () => {
    const [mine, other] = [await byocTeam(), await byocTeam()];
    const owner = await people.logInNew(mine, 'owner');
    const foreign = await people.logInNew(other, 'owner');
    const { body } = await call('/v1/hosts', owner.token, { type: 'byoc' });
    const { id } = body.host;
    const regular = await made();
    const idsOf = async (token: string) =>
      (await call('/v1/hosts?limit=100', token)).body.map((host: { id: string }) => host.id);
    expect(await idsOf(owner.token)).toEqual([id]);
    expect(await idsOf(foreign.token)).toEqual([]);
    expect(await idsOf(admin)).toEqual(expect.arrayContaining([id, regular.id]));
    for (const path of [`/v1/hosts/${id}`, `/v1/hosts/${id}/tags`]) {
      expect((await call(path, foreign.token)).body.error.reason).toBe('host_not_found');
      expect((await call(path, owner.token)).status).toBe(200);
    }
    for (const verb of ['token', 'cordon', 'uncordon'])
      expect((await call(`/v1/hosts/${id}/${verb}`, foreign.token, undefined, 'POST')).status).toBe(404);
    expect((await call(`/v1/hosts/${regular.id}`, owner.token)).status).toBe(404);
    expect((await call(`/v1/hosts/${id}`, admin)).body).toMatchObject({ team_id: mine, team_name: 'a team' });
    await people.db.update(hosts).set({ deletedAt: new Date() }).where(eq(hosts.id, id));
    expect((await call(`/v1/hosts/${id}`, owner.token)).status).toBe(404);
    expect(await idsOf(owner.token)).toEqual([]);
  });

  it('tags, and cordons', async () => {
    const { id } = await made();
    const tag = (name: string) => call(`/v1/hosts/${id}/tags`, admin, { tag: name });
    expect((await tag('SSD')).status).toBe(204);
    expect((await tag('ssd')).status).toBe(204);
    expect((await tag('a b')).status).toBe(400);
    expect((await tag('eu')).status).toBe(204);
    expect((await call(`/v1/hosts/${id}/tags`, admin)).body).toEqual(['eu', 'ssd']);
    expect((await call(`/v1/hosts/${id}/tags/ssd`, admin, undefined, 'DELETE')).status).toBe(204);
    expect((await call(`/v1/hosts/${id}`, admin)).body).toMatchObject({ tags: ['eu'], cordoned: false });
    expect((await call(`/v1/hosts/${id}/cordon`, admin, undefined, 'POST')).body.cordoned).toBe(true);
    expect((await call(`/v1/hosts/${id}/cordon`, admin, undefined, 'POST')).body.cordoned).toBe(true);
    expect((await call(`/v1/hosts/${id}/uncordon`, admin, undefined, 'POST')).body.cordoned).toBe(false);
    expect(await auditOf(id, 'cordon')).toHaveLength(1);
    for (let n = 0; n < 49; n += 1) expect((await tag(`t${n}`)).status).toBe(204);
    expect((await tag('one-more')).status).toBe(400);
  });
});

describe('POST /v1/hosts/register', () => {
  it('gives a certificate for the address, named after the host, and no key', async () => {
    const { id, token } = await made();
    const { status, body } = await agents.register(token, { address: 'node1.example.com:50051', arch: 'x86_64' });
    expect(status).toBe(201);
    expect(body).not.toHaveProperty('key_pem');
    expect(readCertificate(body.cert_pem)).toMatchObject({
      role: 'agent',
      name: id,
      hosts: [{ type: 'dns', value: 'node1.example.com' }],
    });
    const certificate = new X509Certificate(body.cert_pem);
    expect(certificate.verify(new X509Certificate(body.ca_cert_pem).publicKey)).toBe(true);
    expect(body.host).toMatchObject({ id, arch: 'amd64', cpu_cores: 8, memory_mb: 16_384, disk_gb: 100 });
    expect(body.host).toMatchObject({ address: 'node1.example.com:50051', connection: 'inbound' });
    const [row] = await people.db.select().from(hostTokens).where(eq(hostTokens.hostId, id));
    expect(row).toMatchObject({ usedAt: expect.any(Date), usedFrom: '127.0.0.1' });
    expect(await auditOf(id, 'register')).toHaveLength(1);
  });

  it('lets one of many with the same token win', async () => {
    const { id, token } = await made();
    const answers = await Promise.all(Array.from({ length: 8 }, () => agents.register(token, newAddress())));
    const statuses = answers.map(({ status }) => status).sort();
    expect(statuses).toEqual([201, ...Array(7).fill(401)]);
    const refused = answers.find(({ status }) => status === 401)?.body.error;
    expect(refused).toMatchObject({ code: 'unauthorized', reason: 'registration_refused' });
    expect(refused.message).toContain('it was used at');
    const sets = await people.db.select().from(hostRefreshTokens).where(eq(hostRefreshTokens.hostId, id));
    expect(sets).toHaveLength(1);
  });

  it('answers the same agent again as long as it has used nothing, and no other', async () => {
    const { id, token } = await made();
    const address = newAddress();
    const mine = await makeSigningRequest();
    const again = async (keyPem: string) => {
      const { csrPem: csr } = await makeSigningRequest(keyPem);
      return agents.register(token, { ...address, csr });
    };
    const lost = await agents.register(token, { ...address, csr: mine.csrPem });
    expect(lost.status).toBe(201);
    const foreign = await again((await makeSigningRequest()).keyPem);
    expect(foreign.body.error.reason).toBe('registration_refused');
    const got = await again(mine.keyPem);
    expect(got.status).toBe(201);
    expect((await agents.heartbeat(id, lost.body.token)).body.error.reason).toBe('host_credential_refused');
    expect((await agents.heartbeat(id, got.body.token)).status).toBe(200);
    expect((await again(mine.keyPem)).body.error.message).toContain('it was used at');
  });

  it('answers nobody again once a newer token was made', async () => {
    const { id, token } = await made();
    const { csrPem, keyPem } = await makeSigningRequest();
    const address = newAddress();
    expect((await agents.register(token, { ...address, csr: csrPem })).status).toBe(201);
    expect((await call(`/v1/hosts/${id}/token`, admin, undefined, 'POST')).status).toBe(201);
    const { csrPem: csr } = await makeSigningRequest(keyPem);
    expect((await agents.register(token, { ...address, csr })).body.error.reason).toBe('registration_refused');
  });

  it('answers the same agent again where the token is the newest, though the request for it began before another', async () => {
    const { id } = await made();
    const viewer = { isAdmin: true, id: undefined, userId: undefined, team: undefined, actor: SYSTEM };
    const { token } = await people.db.transaction(async (tx) => {
      await tx.execute(sql`SELECT now()`);
      await renewToken(people.db, viewer, id);
      return renewToken(tx, viewer, id);
    });
    const { csrPem: csr } = await makeSigningRequest();
    const asked = { ...newAddress(), csr };
    expect((await agents.register(token, asked)).status).toBe(201);
    expect((await agents.register(token, asked)).status).toBe(201);
  });

  it('says why a token is refused', async () => {
    const message = async (token: string) => (await agents.register(token, newAddress())).body.error.message;
    const { id, token } = await made();
    expect((await call(`/v1/hosts/${id}/token`, admin, undefined, 'POST')).status).toBe(201);
    expect(await message(token)).toContain('a newer one was made');
    const old = await made();
    await people.db
      .update(hostTokens)
      .set({ expiresAt: new Date(0) })
      .where(eq(hostTokens.hostId, old.id));
    await people.db
      .update(oneTimeTokens)
      .set({ expiresAt: new Date(0) })
      .where(eq(oneTimeTokens.subject, old.id));
    expect(await message(old.token)).toContain('it expired at');
    const deleted = await made();
    await people.db.update(hosts).set({ deletedAt: new Date() }).where(eq(hosts.id, deleted.id));
    expect(await message(deleted.token)).toContain('its host was deleted');
    expect(await message('nonsense')).toContain('no such token');
    const teamId = await byocTeam();
    const { body } = await call('/v1/hosts', admin, { type: 'byoc', team_id: teamId });
    await people.db.update(teams).set({ deletedAt: new Date() }).where(eq(teams.id, teamId));
    expect(await message(body.registration_token)).toContain('the team of its host was deleted');
  });

  it('leaves the token good where it was not the token that was wrong', async () => {
    const first = await made();
    const taken = newAddress();
    await agents.register(first.token, taken);
    const { token } = await made();
    expect((await agents.register(token, { csr: 'nonsense' })).body.error.reason).toBe('invalid_request');
    expect((await agents.register(token, { arch: 'mips' })).body.error.reason).toBe('invalid_request');
    expect((await agents.register(token, { address: 'no-port' })).status).toBe(400);
    expect((await agents.register(token, taken)).body.error).toMatchObject({ reason: 'conflict' });
    expect((await agents.register(token, newAddress())).status).toBe(201);
  });

  it('takes hosts that nobody can reach', async () => {
    const { token } = await made();
    const { body } = await agents.register(token, { address: undefined });
    expect(body.host).toMatchObject({ address: null, connection: 'outbound' });
    expect(readCertificate(body.cert_pem).hosts).toEqual([]);
  });

  it('ends earlier credentials when a host registers again, not before', async () => {
    const { id, token, refresh_token: refreshToken } = await registered();
    const again = await call(`/v1/hosts/${id}/token`, admin, undefined, 'POST');
    expect((await agents.heartbeat(id, token)).status).toBe(200);
    const second = await agents.register(again.body.registration_token, newAddress());
    expect(second.status).toBe(201);
    expect((await agents.heartbeat(id, token)).body.error.reason).toBe('host_credential_refused');
    expect((await agents.refresh(refreshToken)).body.error.reason).toBe('host_credential_refused');
    expect((await agents.heartbeat(id, second.body.token)).status).toBe(200);
  });
});

describe('POST /v1/hosts/auth/refresh', () => {
  it('keeps what a host has until what it got is used', async () => {
    const { id, token, refresh_token: refreshToken } = await registered();
    const lost = await agents.refresh(refreshToken);
    expect(lost.status).toBe(200);
    expect((await agents.heartbeat(id, token)).status).toBe(200);
    const got = await agents.refresh(refreshToken);
    expect(got.status).toBe(200);
    expect((await agents.heartbeat(id, got.body.token)).status).toBe(200);
    for (const old of [token, lost.body.token])
      expect((await agents.heartbeat(id, old)).body.error.reason).toBe('host_credential_refused');
    for (const old of [refreshToken, lost.body.refresh_token]) {
      const { status, body } = await agents.refresh(old);
      expect([status, body.error.reason]).toEqual([401, 'host_credential_refused']);
    }
    expect(await auditOf(id, 'reuse_credential')).toHaveLength(2);
    expect((await agents.refresh(got.body.refresh_token)).status).toBe(200);
  });

  it('moves a host to another address, where none is', async () => {
    const { id, refresh_token: refreshToken } = await registered();
    const taken = newAddress();
    await agents.register((await made()).token, taken);
    expect((await agents.refresh(refreshToken, taken)).body.error.reason).toBe('conflict');
    const { status, body } = await agents.refresh(refreshToken, { address: 'moved.example.com:50051' });
    expect(status).toBe(200);
    expect(readCertificate(body.cert_pem).hosts).toEqual([{ type: 'dns', value: 'moved.example.com' }]);
    expect((await call(`/v1/hosts/${id}`, admin)).body.address).toBe('moved.example.com:50051');
  });

  it('keeps one of two sets that are first used at the same instant', async () => {
    const { id, refresh_token: refreshToken } = await registered();
    const both = await Promise.all([agents.refresh(refreshToken), agents.refresh(refreshToken)]);
    const used = await Promise.all(both.map(({ body }) => agents.heartbeat(id, body.token)));
    expect(used.map(({ status }) => status).sort()).toEqual([200, 401]);
  });

  it('refuses what has expired, and hosts that are deleted', async () => {
    const { id, token, refresh_token: refreshToken } = await registered();
    await people.db
      .update(hostRefreshTokens)
      .set({ expiresAt: new Date(0) })
      .where(eq(hostRefreshTokens.hostId, id));
    expect((await agents.refresh(refreshToken)).body.error.message).toContain('it has expired');
    expect((await agents.refresh('nonsense')).status).toBe(401);
    const other = await registered();
    await people.db.update(hosts).set({ deletedAt: new Date() }).where(eq(hosts.id, other.id));
    expect((await agents.refresh(other.refresh_token)).body.error.reason).toBe('host_deleted');
    expect((await agents.heartbeat(other.id, other.token)).status).toBe(410);
    expect((await agents.heartbeat(id, token)).status).toBe(401);
  });
});
