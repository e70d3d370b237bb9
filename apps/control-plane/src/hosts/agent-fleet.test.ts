import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { ControlPlaneClient } from '@wrenn/host-agent/fleet/control-plane-client';
import { CredentialsError } from '@wrenn/host-agent/fleet/credentials';
import { RegistrationError } from '@wrenn/host-agent/fleet/register';
import { isIssuedBy, readCertificate } from '@wrenn/pki/issue';
import { WrennError } from '@wrenn/protocol/errors';
import type { HostBody } from '@wrenn/protocol/rest/hosts';
import { until } from '@wrenn/testing/until';
import { and, eq } from 'drizzle-orm';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import { hostRefreshTokens, hosts } from '../database/host-schema.ts';
import { FaultyProxy, type ProxiedRequest } from '../testing/faulty-proxy.ts';
import { TestAgent } from '../testing/test-agent.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { Visitor } from '../testing/visitor.ts';

const SIGNAL = AbortSignal.timeout(600_000);

let platform: TestPlatform;
let people: TestPeople;
let visitor: Visitor;
let admin: string;
let proxy: FaultyProxy;
let agents: AsyncDisposableStack;

beforeAll(async () => {
  // These hosts are known by their heartbeats alone: a busy machine is not a silent host.
  platform = await TestPlatform.start({}, { hostSilenceMs: 60_000 });
  people = await TestPeople.of(platform);
  visitor = new Visitor(platform, people);
  admin = await people.logIn(await people.addUser({ isAdmin: true }), undefined);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});
beforeEach(async () => {
  agents = new AsyncDisposableStack();
  proxy = agents.use(await FaultyProxy.start(() => platform.baseUrl));
});
afterEach(() => agents.disposeAsync());

const newAgent = async () => agents.use(await TestAgent.make());

async function newHost(): Promise<{ id: string; token: string }> {
  const { body } = await visitor.call('/v1/hosts', { token: admin, json: { type: 'regular' } });
  return { id: body.host.id, token: body.registration_token };
}

async function newToken(id: string): Promise<string> {
  const { status, body } = await visitor.call(`/v1/hosts/${id}/token`, { token: admin, method: 'POST' });
  expect(status).toBe(201);
  return body.registration_token;
}

async function hostOf(id: string): Promise<HostBody> {
  return (await visitor.call(`/v1/hosts/${id}`, { token: admin })).body;
}

/** An agent that registered, and does not run yet. */
async function joined(): Promise<{ agent: TestAgent; id: string; token: string }> {
  const { id, token } = await newHost();
  const agent = await newAgent();
  await agent.join({ cpUrl: proxy.url, register: token, address: agent.address });
  return { agent, id, token };
}

const credentialsOf = async (agent: TestAgent) => JSON.parse(await agent.saved());
const auditOf = (id: string, action: string) =>
  people.db
    .select()
    .from(auditLog)
    .where(and(eq(auditLog.resourceId, id), eq(auditLog.action, action)));
const heartbeats = () => proxy.count('/heartbeat');
const isHeartbeat = ({ path }: ProxiedRequest) => path.endsWith('/heartbeat');
const isRefresh = ({ path }: ProxiedRequest) => path.endsWith('/refresh');
const isRegistration = ({ path }: ProxiedRequest) => path.endsWith('/register');
/** That so many more heartbeats came. */
const moreHeartbeats = async (count: number) => {
  const before = heartbeats();
  await until('heartbeats come', () => heartbeats() >= before + count);
};

describe('an agent that registers', () => {
  it('becomes a host that is online, with what was measured, and keeps its key to itself', async () => {
    const { agent, id } = await joined();
    expect((await stat(agent.dir.hostCredentials)).mode & 0o777).toBe(0o600);
    expect(await readdir(agent.dir.root)).toEqual(['host-token']);
    const { cert_pem: certPem, key_pem: keyPem, ca_cert_pem: caCertPem } = await credentialsOf(agent);
    expect(await isIssuedBy({ certPem, keyPem }, caCertPem)).toBe(true);
    expect(JSON.stringify(proxy.requests)).not.toContain('PRIVATE KEY');
    expect(await hostOf(id)).toMatchObject({
      ...{ status: 'pending', arch: 'amd64', cpu_cores: availableParallelism(), hypervisor: 'qemu' },
      ...{ accelerator: 'tcg', agent_version: '0.1.0', address: agent.address, connection: 'inbound' },
    });
    agent.run();
    await until('the host is online', async () => (await hostOf(id)).status === 'online');
    const { last_heartbeat_at: at, templates, disk_free_mb: diskFreeMb } = await hostOf(id);
    expect({ templates, diskFreeMb }).toEqual({ templates: ['minimal'], diskFreeMb: 50_000 });
    expect(Date.now() - new Date(at ?? 0).getTime()).toBeLessThan(20_000);
    expect(agent.told('this machine is registered')[0]).toMatchObject({ hostId: id });
  });

  it('goes on without --register, and without WRENN_CP_URL', async () => {
    const { agent, id } = await joined();
    agent.run();
    await moreHeartbeats(1);
    await agent.restart();
    await moreHeartbeats(2);
    const boots = new Set(proxy.requests.filter(isHeartbeat).map(({ body }) => body.boot_id));
    expect(boots.size).toBe(2);
    expect((await hostOf(id)).status).toBe('online');
    expect(proxy.count('/register')).toBe(1);
  });

  it('is not stopped by a --register that stayed in its command line', async () => {
    const { agent, token, id } = await joined();
    const { credentials } = await agent.join({ register: token });
    expect(credentials.host_id).toBe(id);
    expect(agent.told('registered with this token already')).toHaveLength(1);
    expect(proxy.count('/register')).toBe(1);
  });

  it('says where it has not joined, and what a damaged file is', async () => {
    const agent = await newAgent();
    await expect(agent.join({ cpUrl: proxy.url })).rejects.toThrow(/is no host of a platform yet.*--register/);
    await expect(agent.join({ register: 'x' })).rejects.toThrow(/WRENN_CP_URL/);
    const { agent: other } = await joined();
    const saved = await credentialsOf(other);
    for (const text of ['nonsense', JSON.stringify({ ...saved, host_id: 'host-other' })]) {
      await writeFile(agent.dir.hostCredentials, text);
      await expect(agent.join()).rejects.toThrow(CredentialsError);
    }
    const { token } = await newHost();
    await agent.join({ cpUrl: proxy.url, register: token, address: agent.address });
    expect(agent.told('the credentials of before are replaced')).toHaveLength(1);
  });

  it('wins alone where two use one token; the other has nothing', async () => {
    const { id, token } = await newHost();
    const both = [await newAgent(), await newAgent()];
    const outcomes = await Promise.allSettled(
      both.map((agent) => agent.join({ cpUrl: proxy.url, register: token, address: agent.address })),
    );
    const lost = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
    expect(lost).toHaveLength(1);
    expect(lost[0]).toBeInstanceOf(RegistrationError);
    expect(lost[0].message).toMatch(/it was used at .*POST \/v1\/hosts\/{id}\/token/);
    const files = await Promise.all(both.map(({ dir }) => readdir(dir.root)));
    expect(files.filter((names) => names.includes('host-token'))).toHaveLength(1);
    const winner = both.find((_, index) => files[index]?.includes('host-token'));
    winner?.run();
    await until('the host is online', async () => (await hostOf(id)).status === 'online');
  });

  it('gets its credentials although the first answer was lost', async () => {
    const { id, token } = await newHost();
    const agent = await newAgent();
    proxy.decide = (request) => (isRegistration(request) && proxy.count('/register') === 1 ? 'lose' : 'pass');
    await agent.join({ cpUrl: proxy.url, register: token, address: agent.address });
    expect(proxy.count('/register')).toBe(2);
    agent.run();
    await until('the host is online', async () => (await hostOf(id)).status === 'online');
  });

  it('gets them in a later start too, with the same key', async () => {
    const { token } = await newHost();
    const agent = await newAgent();
    const options = { cpUrl: proxy.url, register: token, address: agent.address };
    proxy.decide = () => 'lose';
    await expect(agent.join(options, 0)).rejects.toThrow(/start the agent again with the same token/);
    expect(await readdir(agent.dir.root)).toEqual(['host-key']);
    proxy.decide = () => 'pass';
    await agent.join(options);
    expect(await readdir(agent.dir.root)).toEqual(['host-token']);
  });

  it('needs another token where its own is no good, and is then what it was', async () => {
    const { agent, id } = await joined();
    const before = await agent.saved();
    await expect(agent.join({ register: 'nonsense' })).rejects.toThrow(/no such token was made/);
    expect(await agent.saved()).toBe(before);
    const register = await newToken(id);
    const { credentials } = await agent.join({ register, address: agent.address });
    expect(credentials.host_id).toBe(id);
    expect(agent.told('this machine is registered again')[0]).toMatchObject({ before: { hostId: id } });
    agent.run();
    await until('the host is online', async () => (await hostOf(id)).status === 'online');
  });

  it('waits for a control plane that is not there yet, and not for a page of a proxy that it cannot read', async () => {
    const { token } = await newHost();
    const agent = await newAgent();
    const options = { cpUrl: proxy.url, register: token, address: agent.address };
    const page = { status: 404, text: '<html>' };
    proxy.decide = () => page;
    await expect(agent.join(options, 0)).rejects.toThrow(/answered with 404: <html>/);
    proxy.decide = () => ({ status: 301, text: '', headers: { location: 'https://elsewhere/' } });
    await expect(agent.join(options, 0)).rejects.toThrow(/redirects to https:\/\/elsewhere\/; set WRENN_CP_URL/);
    proxy.decide = () => (proxy.count('/register') < 5 ? 'cut' : 'pass');
    await agent.join(options);
  });

  it('takes no certificate of another key, and saves nothing then', async () => {
    const { agent: other } = await joined();
    const foreign = await credentialsOf(other);
    const { token } = await newHost();
    const agent = await newAgent();
    proxy.decide = () => ({ status: 201, text: JSON.stringify(foreign) });
    await expect(agent.join({ cpUrl: proxy.url, register: token })).rejects.toThrow(/of another key/);
    expect(await readdir(agent.dir.root)).toEqual(['host-key']);
  });

  it('moves to another address, and stays where it was if that is taken', async () => {
    const [{ agent, id }, { agent: neighbour }] = [await joined(), await joined()];
    await agent.join({ address: neighbour.address });
    agent.run();
    await until('it is refused', () => agent.told('the new address of this host was refused').length > 0);
    expect((await hostOf(id)).address).toBe(agent.address);
    await agent.stop();
    await agent.join({ address: 'moved.example.com:50051' });
    agent.run();
    await until('it has moved', async () => (await hostOf(id)).address === 'moved.example.com:50051');
    await until('it is saved', async () => (await credentialsOf(agent)).address === 'moved.example.com:50051');
    expect(readCertificate((await credentialsOf(agent)).cert_pem).hosts[0]?.value).toBe('moved.example.com');
  });
});

describe('the credentials of a host', () => {
  it('are renewed when it is asked to, saved before they are used, and given to its server', async () => {
    const { agent } = await joined();
    const before = await credentialsOf(agent);
    const renew = (answer: { status: number; text: string }) => ({
      ...answer,
      text: JSON.stringify({ ...JSON.parse(answer.text), renew: true }),
    });
    proxy.decide = (request) => (isHeartbeat(request) && heartbeats() === 1 ? renew : 'pass');
    agent.run();
    await until('they are renewed', () => agent.renewed.length === 1);
    const after = await credentialsOf(agent);
    expect(after.cert_pem).toBe(agent.renewed[0]?.agent.certPem);
    expect(after.cert_pem).not.toBe(before.cert_pem);
    await moreHeartbeats(2);
    expect(proxy.count('/refresh')).toBe(1);
    const client = new ControlPlaneClient(platform.baseUrl);
    const old = client.heartbeat(before.host_id, before.token, proxy.requests.findLast(isHeartbeat)?.body, SIGNAL);
    await expect(old).rejects.toMatchObject({ code: 'host_credential_refused' });
  });

  it('are renewed after two thirds of their life, whatever the clock says', async () => {
    const { agent } = await joined();
    const saved = await credentialsOf(agent);
    const save = (obtainedAt: number) =>
      writeFile(
        agent.dir.hostCredentials,
        JSON.stringify({ ...saved, obtained_at: new Date(obtainedAt).toISOString() }),
      );
    const dayMs = 86_400_000;
    for (const [agoMs, isDue] of [
      [4.6 * dayMs, false],
      [4.7 * dayMs, true],
      // The clock was set back since.
      [-4000 * dayMs, false],
    ] as const) {
      await save(Date.now() - agoMs);
      await agent.join();
      expect(agent.run().renewal.isDue, `${agoMs}`).toBe(isDue);
      await agent.stop();
    }
  });

  it('come at once where the token is refused', async () => {
    const { agent, id } = await joined();
    const saved = await credentialsOf(agent);
    await writeFile(agent.dir.hostCredentials, JSON.stringify({ ...saved, token: 'of another secret' }));
    await agent.join();
    agent.run({ intervalMs: 60_000, backOff: { firstMs: 60_000, lastMs: 60_000 }, rareMs: 60_000 });
    await until('the host is online', async () => (await hostOf(id)).status === 'online');
    expect(proxy.count('/refresh')).toBe(1);
  });

  it('are asked for again and again, soon, where the token is no good and nothing answers', async () => {
    const { agent, id } = await joined();
    const saved = await credentialsOf(agent);
    await writeFile(agent.dir.hostCredentials, JSON.stringify({ ...saved, token: 'of another secret' }));
    await agent.join();
    proxy.decide = (request) => (isRefresh(request) ? { status: 502, text: '<html>' } : 'pass');
    agent.run({ rareMs: 60_000 });
    await until('it is asked for', () => proxy.count('/refresh') > 3);
    proxy.decide = () => 'pass';
    await until('the host is online', async () => (await hostOf(id)).status === 'online');
  });

  it('survive answers that are lost', async () => {
    const { agent, id } = await joined();
    const work = agent.run();
    await moreHeartbeats(1);
    proxy.decide = (request) => (isRefresh(request) ? 'lose' : 'pass');
    expect([await work.renewal.attempt(), await work.renewal.attempt()]).toEqual([false, false]);
    await moreHeartbeats(3);
    expect(agent.told('cannot be renewed yet')).toHaveLength(1);
    proxy.decide = () => 'pass';
    expect(await work.renewal.attempt()).toBe(true);
    const setsOf = () => people.db.select().from(hostRefreshTokens).where(eq(hostRefreshTokens.hostId, id));
    await until('the others have ended', async () => {
      const good = (await setsOf()).filter(({ revokedAt }) => revokedAt === null || revokedAt.getTime() > Date.now());
      return good.length === 1;
    });
    // More where it was time for the next one meanwhile.
    expect((await setsOf()).length).toBeGreaterThanOrEqual(4);
    expect((await hostOf(id)).status).toBe('online');
  });

  it('are good again after a crash on either side of their being saved', async () => {
    const { agent } = await joined();
    agent.run();
    await moreHeartbeats(1);
    await agent.stop();
    const before = await agent.saved();
    await agent.join();
    proxy.decide = (request) => (isHeartbeat(request) ? 'cut' : 'pass');
    expect(await agent.run().renewal.attempt()).toBe(true);
    const after = await agent.saved();
    await agent.stop();
    proxy.decide = () => 'pass';
    // Given, and not saved.
    await writeFile(agent.dir.hostCredentials, before);
    await agent.restart();
    await moreHeartbeats(2);
    await agent.stop();
    // Saved, and not used.
    await writeFile(agent.dir.hostCredentials, after);
    const work = await agent.restart();
    await moreHeartbeats(2);
    expect(agent.told('refused')).toEqual([]);
    expect(await work.renewal.attempt()).toBe(true);
  });

  it('are not used where they cannot be saved', async () => {
    const { agent } = await joined();
    const work = agent.run();
    await moreHeartbeats(1);
    const before = await agent.saved();
    // A folder with something in it cannot be replaced by a file.
    await rm(agent.dir.hostCredentials);
    await mkdir(`${agent.dir.hostCredentials}/x`, { recursive: true });
    expect(await work.renewal.attempt()).toBe(false);
    expect(agent.renewed).toEqual([]);
    await moreHeartbeats(2);
    expect(work.renewal.current).toEqual(JSON.parse(before));
    await rm(agent.dir.hostCredentials, { recursive: true });
    expect(await work.renewal.attempt()).toBe(true);
    expect(await credentialsOf(agent)).toEqual(work.renewal.current);
    await moreHeartbeats(2);
  });

  it('are asked for once, however many want them', async () => {
    const { agent } = await joined();
    const work = agent.run();
    await moreHeartbeats(1);
    expect(await Promise.all(Array.from({ length: 5 }, () => work.renewal.attempt()))).toEqual(Array(5).fill(true));
    expect(proxy.count('/refresh')).toBe(1);
  });

  it('are not taken in the place of others, nor others in theirs', async () => {
    const { agent, id } = await joined();
    const { token, refresh_token: refreshToken } = await credentialsOf(agent);
    for (const wrong of [token, refreshToken]) {
      expect((await visitor.call('/v1/hosts', { token: wrong })).status).toBe(401);
      expect((await fetch(`${platform.baseUrl}/v1/capsules`, { headers: { 'x-api-key': wrong } })).status).toBe(401);
    }
    const client = new ControlPlaneClient(platform.baseUrl);
    agent.run();
    await moreHeartbeats(1);
    const { body } = proxy.requests.find(isHeartbeat) ?? {};
    const { token: registration } = await newHost();
    for (const wrong of [admin, platform.apiKey, refreshToken, registration]) {
      const answer = client.heartbeat(id, wrong, body, SIGNAL);
      await expect(answer).rejects.toMatchObject({ name: 'WrennError', http: 401 });
    }
    for (const wrong of [token, registration, platform.apiKey]) {
      const csr = proxy.requests.find(isRegistration)?.body.csr;
      const answer = client.refresh({ refresh_token: wrong.slice(0, 500), csr }, SIGNAL);
      await expect(answer).rejects.toMatchObject({ code: 'host_credential_refused' });
    }
    const other = await newHost();
    await expect(client.heartbeat(other.id, token, body, SIGNAL)).rejects.toMatchObject({ code: 'forbidden' });
  });

  it('that a database of an old backup does not know are asked with for ever, until there is another token', async () => {
    const { agent, id } = await joined();
    agent.run();
    await moreHeartbeats(1);
    const before = await agent.saved();
    await people.db.delete(hostRefreshTokens).where(eq(hostRefreshTokens.hostId, id));
    await until('the agent says it', () => agent.told('new credentials were refused').length === 1);
    expect(agent.told('new credentials were refused')[0]?.remedy).toMatch(/start the agent once with --register/);
    await moreHeartbeats(3);
    expect(await agent.saved()).toBe(before);
    await agent.stop();
    await agent.join({ register: await newToken(id), address: agent.address });
    agent.run();
    await until('the host is online', async () => (await hostOf(id)).status === 'online');
  });

  it('cannot be used by a copy beside the original unseen', async () => {
    const { agent: original, id } = await joined();
    original.run();
    await moreHeartbeats(2);
    const copy = await newAgent();
    await writeFile(copy.dir.hostCredentials, await original.saved());
    await copy.join();
    const work = copy.run();
    await until('the original hears of it', () =>
      original.lines.some(({ problem }) => String(problem).startsWith('Another agent uses the credentials')),
    );
    expect(await auditOf(id, 'credentials_shared')).toHaveLength(1);
    // Once one of them has new credentials, the other has none.
    expect(await work.renewal.attempt()).toBe(true);
    await until('the original is refused', () => original.told('new credentials were refused').length > 0);
    expect((await auditOf(id, 'reuse_credential')).length).toBeGreaterThan(0);
    const refused = heartbeats();
    await until('both go on asking', () => heartbeats() > refused + 4);
    // Whoever may act on it makes a token for the right one.
    await original.stop();
    await original.join({ register: await newToken(id), address: original.address });
    original.run();
    await until('the copy is out', () => copy.told('new credentials were refused').length > 0);
    await until('the host is online', async () => (await hostOf(id)).status === 'online');
  });
});

describe('heartbeats', () => {
  it('begin again by themselves when the control plane was away, and are few meanwhile', async () => {
    const { agent, id } = await joined();
    agent.run();
    await moreHeartbeats(1);
    proxy.decide = () => 'cut';
    await moreHeartbeats(20);
    expect(agent.told('a heartbeat did not reach the control plane')).toHaveLength(1);
    await people.db.update(hosts).set({ status: 'unreachable' }).where(eq(hosts.id, id));
    proxy.decide = () => 'pass';
    await until('the host is online', async () => (await hostOf(id)).status === 'online');
    await until('the agent says it', () => agent.told('takes heartbeats again').length === 1);
    for (const status of [404, 410, 500, 502]) {
      proxy.decide = () => ({ status, text: '<html>' });
      await moreHeartbeats(3);
    }
    proxy.decide = () => 'pass';
    await until('it is answered', () => agent.told('takes heartbeats again').length === 2);
    expect(proxy.count('/refresh')).toBe(0);
  });

  it('go on after a control plane was started anew', async () => {
    const { agent, id } = await joined();
    agent.run();
    await moreHeartbeats(1);
    await platform.stopControlPlane();
    await moreHeartbeats(3);
    await platform.startControlPlane();
    await until('it is answered', () => agent.told('takes heartbeats again').length === 1);
    expect((await hostOf(id)).status).toBe('online');
  });

  it('are counted, and one that arrives twice counts once', async () => {
    const { agent, id } = await joined();
    agent.run();
    await moreHeartbeats(3);
    await agent.stop();
    const sent = proxy.requests.filter(isHeartbeat).map(({ body }) => body.sequence);
    expect(sent).toEqual(sent.map((_, index) => index + 1));
    const client = new ControlPlaneClient(platform.baseUrl);
    const { token } = await credentialsOf(agent);
    const again = await client.heartbeat(id, token, proxy.requests.findLast(isHeartbeat)?.body, SIGNAL);
    expect(again.status).toBe('online');
    expect(await auditOf(id, 'credentials_shared')).toEqual([]);
  });

  it('tell both sides of a clock that is off, and when it is right again', async () => {
    const { agent, id } = await joined();
    const hourMs = 3_600_000;
    proxy.decide = (request) => {
      if (isHeartbeat(request)) request.body.sent_at = new Date(Date.now() + hourMs).toISOString();
      return 'pass';
    };
    agent.run();
    await until('the agent says it', () => agent.told('the clock of this machine is not').length === 1);
    expect(Math.abs(((await hostOf(id)).clock_offset_ms ?? 0) - hourMs)).toBeLessThan(20_000);
    expect(await auditOf(id, 'clock_off')).toHaveLength(1);
    await moreHeartbeats(3);
    expect(agent.told('the clock of this machine is not')).toHaveLength(1);
    proxy.decide = () => 'pass';
    await until('it is right', () => agent.told('is right again').length === 1);
    expect(await auditOf(id, 'clock_right')).toHaveLength(1);
  });

  it.each([
    ['says nothing', () => ({ status: 204, text: '' })],
    ['says less', () => ({ status: 200, text: '{}' })],
    ['says more', () => ({ status: 200, text: '{"status":"resting","renew":"perhaps","later":{"x":1}}' })],
  ])('are fine with a control plane that %s', async (_what, answer) => {
    const { agent } = await joined();
    proxy.decide = (request) => (isHeartbeat(request) ? answer() : 'pass');
    agent.run();
    await moreHeartbeats(4);
    expect(agent.lines.filter(({ level }) => level > 30)).toEqual([]);
    expect(proxy.count('/refresh')).toBe(0);
  });

  it('of an agent that says more, or less, are taken', async () => {
    const { agent, id } = await joined();
    agent.run();
    await moreHeartbeats(1);
    await agent.stop();
    const { token } = await credentialsOf(agent);
    const {
      boot_id: _boot,
      sequence: _sequence,
      samples: _samples,
      ...old
    } = proxy.requests.find(isHeartbeat)?.body ?? {};
    const client = new ControlPlaneClient(platform.baseUrl);
    expect((await client.heartbeat(id, token, old, SIGNAL)).status).toBe('online');
    const fresh = { ...old, samples: [], gpu: { count: 1 } };
    expect((await client.heartbeat(id, token, fresh, SIGNAL)).status).toBe('online');
  });

  it('go on, rarely, when the host was deleted; nothing on the machine is touched', async () => {
    const { agent, id } = await joined();
    agent.run();
    await moreHeartbeats(1);
    await until('the host is online', async () => (await hostOf(id)).status === 'online');
    await people.db.update(hosts).set({ deletedAt: new Date(), status: 'deleted' }).where(eq(hosts.id, id));
    await until('the agent says it', () => agent.told('this host was deleted').length === 1);
    const before = await agent.saved();
    const startedMs = performance.now();
    await moreHeartbeats(3);
    expect(performance.now() - startedMs).toBeGreaterThan(200);
    expect(agent.told('this host was deleted')).toHaveLength(1);
    expect(await agent.saved()).toBe(before);
    expect(proxy.count('/refresh')).toBe(0);
    await people.db.update(hosts).set({ deletedAt: null, status: 'online' }).where(eq(hosts.id, id));
    await until('it is a host again', () => agent.told('takes heartbeats again').length === 1);
  });

  it('bring measurements until the control plane has them', async () => {
    const { agent } = await joined();
    const at = new Date();
    const sample = { id: 'cl-x', at, countedFrom: at, cpuPct: 1, memoryBytes: 2, diskBytes: 3 };
    let isKnown = false;
    agent.takeSamples = () => ({
      samples: isKnown ? [] : [{ ...sample, netRxBytes: 4, netTxBytes: 5 }],
      acknowledge: () => {
        isKnown = true;
      },
    });
    proxy.decide = () => 'lose';
    agent.run();
    await moreHeartbeats(3);
    expect(isKnown).toBe(false);
    proxy.decide = () => 'pass';
    await until('they are known', () => isKnown);
    await moreHeartbeats(2);
    const bodies = proxy.requests.filter(isHeartbeat).map(({ body }) => body.samples);
    expect(bodies[0]).toEqual([
      {
        ...{ id: 'cl-x', at: at.toISOString(), counted_from: at.toISOString(), cpu_pct: 1, memory_bytes: 2 },
        ...{ disk_bytes: 3, net_rx_bytes: 4, net_tx_bytes: 5 },
      },
    ]);
    expect(bodies.at(-1)).toEqual([]);
  });
});

it('tells what a control plane refuses from what never arrived', async () => {
  const client = new ControlPlaneClient(proxy.url);
  proxy.decide = () => 'cut';
  await expect(client.refresh({ refresh_token: 'x', csr: 'x' }, SIGNAL)).rejects.toThrow(/cannot be reached/);
  proxy.decide = () => 'pass';
  await expect(client.refresh({ refresh_token: 'x', csr: 'x' }, SIGNAL)).rejects.toBeInstanceOf(WrennError);
});
