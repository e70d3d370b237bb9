import { newId } from '@wrenn/protocol/ids';
import { until } from '@wrenn/testing/until';
import { and, eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import { channels, events } from '../database/channel-schema.ts';
import { hostRefreshTokens, hosts } from '../database/host-schema.ts';
import { oneTimeTokens } from '../database/people-schema.ts';
import { capsules } from '../database/schema.ts';
import { PLATFORM_TEAM_ID } from '../teams/platform-team.ts';
import { FleetHost } from '../testing/fleet-host.ts';
import { TestHosts } from '../testing/test-hosts.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
let people: TestPeople;
let adminToken: string;

beforeAll(async () => {
  platform = await TestPlatform.start({}, { hostSilenceMs: 1500 });
  people = await TestPeople.of(platform);
  adminToken = await people.logIn(await people.addUser({ isAdmin: true }), undefined);
  // Whatever is made from here on is for hosts that registered.
  await platform.host.goSilent();
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

const asAdmin = (path: string, init: { method?: string; json?: unknown } = {}) =>
  platform.call(`/v1/hosts${path && `/${path}`}`, { ...init, token: adminToken });
const act = (path: string, json?: object) => asAdmin(path, { method: 'POST', ...(json ? { json } : {}) });
const hostOf = async (id: string) => (await asAdmin(id)).body;
const capsule = async (id: string) => (await platform.call(`/v1/capsules/${id}`)).body;
const verb = (id: string, name: string) => platform.call(`/v1/capsules/${id}/${name}`, { method: 'POST' });
const exec = (id: string) => platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'true' } });
const untilStatus = (id: string, status: string) =>
  until(`${id} is ${status}`, async () => (await capsule(id)).status === status);
const untilHost = (id: string, facts: object) =>
  until(`${id} is ${JSON.stringify(facts)}`, async () => {
    const now = await hostOf(id);
    return Object.entries(facts).every(([name, value]) => now[name] === value);
  });
const auditOf = (id: string, action: string) =>
  people.db
    .select()
    .from(auditLog)
    .where(and(eq(auditLog.resourceId, id), eq(auditLog.action, action)));

/** A host that is online, to which what is left of others' tests is nothing. */
async function joined(online = 1): Promise<FleetHost> {
  const host = await FleetHost.join(platform, { adminToken });
  await host.online(online);
  return host;
}

/** The same, to which nothing new comes. */
async function leave(host: FleetHost): Promise<void> {
  expect((await asAdmin(`${host.id}?force=true`, { method: 'DELETE' })).status).toBe(204);
}

describe('a cordoned host', () => {
  it('gets no new capsules, and what it has goes on', async () => {
    await using host = await joined();
    const id = await platform.createCapsule();
    await act(`${host.id}/cordon`);
    const refused = await platform.call('/v1/capsules', { json: {} });
    expect(refused.body.error).toMatchObject({ reason: 'no_hosts_available' });
    expect(refused.body.error.message).toContain('cordoned');
    expect((await exec(id)).body.exit_code).toBe(0);
    expect((await verb(id, 'pause')).status).toBe(200);
    expect((await verb(id, 'resume')).status).toBe(200);
    await act(`${host.id}/uncordon`);
    await platform.createCapsule();
    expect(host.loopback.vmIds()).toHaveLength(2);
    await leave(host);
  });
});

describe('POST /v1/hosts/{id}/drain', () => {
  it('puts all to sleep where they are, lets nothing new in, and ends with undrain', async () => {
    await using host = await joined();
    const ids = await Promise.all([1, 2, 3, 4, 5, 6].map(() => platform.createCapsule()));
    const begun = await act(`${host.id}/drain`, { mode: 'pause' });
    expect(begun.status).toBe(202);
    expect(begun.body).toMatchObject({ status: 'draining', drain: 'pause', cordoned: true });
    expect((await platform.call('/v1/capsules', { json: {} })).status).toBe(503);
    await untilHost(host.id, { running_capsules: 0, sleeping_capsules: 6 });
    for (const id of ids) expect((await capsule(id)).status).toBe('paused');
    expect((await act(`${host.id}/drain`, { mode: 'pause' })).status).toBe(202);
    expect(await auditOf(host.id, 'drain')).toHaveLength(1);

    const ended = await act(`${host.id}/undrain`);
    expect(ended).toMatchObject({ status: 200, body: { status: 'online', drain: null, cordoned: false } });
    expect((await act(`${host.id}/undrain`)).status).toBe(200);
    expect(await auditOf(host.id, 'undrain')).toHaveLength(1);
    expect((await verb(ids[0] ?? '', 'resume')).body.status).toBe('running');
    await platform.createCapsule();
    await leave(host);
  });

  it('moves all to the object store, from where they wake on another host', async () => {
    await using host = await joined();
    const [running, sleeping] = [await platform.createCapsule(), await platform.createCapsule()];
    expect((await verb(sleeping, 'pause')).status).toBe(200);
    await using other = await joined(2);
    other.loopback.shareStoreOf(host.loopback);
    expect((await act(`${host.id}/drain`)).body).toMatchObject({ drain: 'hibernate' });
    await Promise.all([untilStatus(running, 'hibernated'), untilStatus(sleeping, 'hibernated')]);
    await until('its host has nothing of them', () => host.loopback.vmIds().length === 0);
    for (const id of [running, sleeping]) {
      expect((await verb(id, 'resume')).body).toMatchObject({ status: 'running', generation: 1 });
      expect((await exec(id)).body.exit_code).toBe(0);
    }
    expect(other.loopback.vmIds().sort()).toEqual([running, sleeping].sort());
    // Empty now, so nothing is lost with it.
    expect((await asAdmin(host.id, { method: 'DELETE' })).status).toBe(204);
    await leave(other);
  });

  it('waits for a host that is silent, and goes on when it is back', async () => {
    await using host = await joined();
    const id = await platform.createCapsule();
    await host.loopback.goSilent();
    await untilHost(host.id, { status: 'unreachable' });
    expect((await act(`${host.id}/drain`, { mode: 'pause' })).body).toMatchObject({ status: 'unreachable' });
    await untilStatus(id, 'missing');
    await host.loopback.listen();
    await host.heartbeat();
    await untilHost(host.id, { status: 'draining' });
    await untilStatus(id, 'paused');
    await leave(host);
  });

  it('tells of what it cannot put to sleep, and leaves it as it is', async () => {
    await using host = await joined();
    const [good, bad] = [await platform.createCapsule(), await platform.createCapsule()];
    host.loopback.before.pause = async ({ id }) => {
      if (id === bad) throw new Error('the disk does not take it');
    };
    await act(`${host.id}/drain`, { mode: 'pause' });
    await untilStatus(good, 'paused');
    await until('the other one was tried', () => host.loopback.asked('pause').length >= 2);
    await untilStatus(bad, 'running');
    expect((await exec(bad)).body.exit_code).toBe(0);
    await act(`${host.id}/undrain`);
    await leave(host);
  });
});

describe('DELETE /v1/hosts/{id}', () => {
  it('names what would be lost, and refuses', async () => {
    await using host = await joined();
    const [running, paused] = [await platform.createCapsule(), await platform.createCapsule()];
    await verb(paused, 'pause');
    const made = await platform.call(`/v1/capsules/${running}/snapshots`, { json: { name: 'kept-there' } });
    expect(made.status).toBeLessThan(300);
    const preview = await asAdmin(`${host.id}/delete-preview`);
    expect(preview).toMatchObject({ status: 200, body: { running: 1, sleeping: 1, host: { id: host.id } } });
    expect(preview.body.sandbox_ids.sort()).toEqual([running, paused].sort());
    expect(preview.body.snapshots).toHaveLength(1);
    const { status, body } = await asAdmin(host.id, { method: 'DELETE' });
    expect([status, body.error.reason]).toEqual([409, 'has_active_sandboxes']);
    expect(body.error.details.sandbox_ids.split(',').sort()).toEqual([running, paused].sort());
    expect((await exec(running)).body.exit_code).toBe(0);
    expect((await hostOf(host.id)).status).toBe('online');
    await leave(host);
  });

  it('ends all that it has by force, and every credential', async () => {
    await using host = await joined();
    const ids = [await platform.createCapsule(), await platform.createCapsule(), await platform.createCapsule()];
    const [, paused = '', hibernated = ''] = ids;
    await verb(paused, 'pause');
    await verb(hibernated, 'pause');
    await verb(hibernated, 'hibernate');
    const next = await act(`${host.id}/token`);
    await leave(host);
    expect((await capsule(ids[0] ?? '')).status).toBe('stopped');
    expect((await capsule(paused)).status).toBe('stopped');
    // Of no host, so it goes with none.
    expect((await capsule(hibernated)).status).toBe('hibernated');
    expect(host.loopback.vmIds()).toEqual([]);
    expect((await asAdmin(host.id)).status).toBe(404);
    expect((await asAdmin(host.id, { method: 'DELETE' })).status).toBe(404);
    expect((await host.heartbeat()).body.error).toMatchObject({ reason: 'host_deleted' });
    const again = await new TestHosts(platform).register(next.body.registration_token);
    expect(again.status).toBe(401);
    const sets = await people.db.select().from(hostRefreshTokens).where(eq(hostRefreshTokens.hostId, host.id));
    expect(sets.every(({ revokedAt }) => revokedAt !== null)).toBe(true);
    expect(await people.db.select().from(oneTimeTokens).where(eq(oneTimeTokens.subject, host.id))).toEqual([]);
    const [row] = await people.db.select().from(hosts).where(eq(hosts.id, host.id));
    expect(row).toMatchObject({ status: 'deleted', deletedAt: expect.any(Date) });
    expect(await auditOf(host.id, 'delete')).toHaveLength(1);
    await using other = await joined();
    other.loopback.shareStoreOf(host.loopback);
    expect((await verb(hibernated, 'resume')).body.status).toBe('running');
    await leave(other);
  });

  it('takes away a host that answers no more, and its address is free', async () => {
    await using host = await joined();
    const id = await platform.createCapsule();
    await host.loopback.goSilent();
    await untilStatus(id, 'missing');
    expect((await asAdmin(host.id, { method: 'DELETE' })).body.error.reason).toBe('has_active_sandboxes');
    const { body } = await asAdmin(host.id);
    await leave(host);
    expect(await capsule(id)).toMatchObject({ status: 'stopped', status_reason: 'its host was deleted' });
    const made = await asAdmin('', { method: 'POST', json: { type: 'regular' } });
    const address = { address: body.address };
    expect((await new TestHosts(platform).register(made.body.registration_token, address)).status).toBe(201);
    expect((await asAdmin(made.body.host.id, { method: 'DELETE' })).status).toBe(204);
  });

  it('takes a host away that never registered', async () => {
    const made = await asAdmin('', { method: 'POST', json: { type: 'regular' } });
    expect((await asAdmin(made.body.host.id, { method: 'DELETE' })).status).toBe(204);
    expect((await new TestHosts(platform).register(made.body.registration_token)).body.error.message).toContain(
      'its host was deleted',
    );
  });
});

describe('a sleeping capsule', () => {
  it('wakes on its own host and nowhere else, and says so while that is silent', async () => {
    await using host = await joined();
    const id = await platform.createCapsule();
    await verb(id, 'pause');
    await using other = await joined(2);
    other.loopback.shareStoreOf(host.loopback);
    await host.loopback.goSilent();
    await untilHost(host.id, { status: 'unreachable' });
    const refused = await verb(id, 'resume');
    expect(refused).toMatchObject({ status: 503, body: { error: { reason: 'host_unavailable', retryable: true } } });
    expect((await capsule(id)).status).toBe('paused');
    expect(other.loopback.vmIds()).toEqual([]);
    await host.loopback.listen();
    await host.online(2);
    expect((await verb(id, 'resume')).body.status).toBe('running');
    expect(host.loopback.vmIds()).toEqual([id]);
    const [row] = await people.db.select().from(capsules).where(eq(capsules.id, id));
    expect(row?.hostId).toBe(host.id);
    await leave(other);
    await leave(host);
  });
});

describe('channels of the platform', () => {
  it('are told that a host comes, is silent, returns and is deleted', async () => {
    await people.db.insert(channels).values({
      ...{ id: newId('ch'), teamId: PLATFORM_TEAM_ID, name: 'hosts', provider: 'webhook', config: {} },
      events: ['host.up', 'host.down'],
    });
    await using host = await joined();
    await host.loopback.goSilent();
    await untilHost(host.id, { status: 'unreachable' });
    await host.loopback.listen();
    await host.online();
    await leave(host);
    const told = await people.db.select().from(events).where(eq(events.resourceId, host.id)).orderBy(events.createdAt);
    expect(told.map(({ type, data }) => [type, data.from, data.to])).toEqual([
      ['host.up', 'pending', 'online'],
      ['host.down', 'online', 'unreachable'],
      ['host.up', 'unreachable', 'online'],
      ['host.down', 'online', 'deleted'],
    ]);
    expect(told.at(-1)?.actorType).toBe('user');
  });
});
