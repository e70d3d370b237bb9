import { WrennError } from '@wrenn/protocol/errors';
import { until } from '@wrenn/testing/until';
import { and, eq, inArray } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import { capsules, operations } from '../database/schema.ts';
import { FleetHost } from '../testing/fleet-host.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

const SILENCE_MS = 6000;

let platform: TestPlatform;
let people: TestPeople;
let adminToken: string;

beforeAll(async () => {
  platform = await TestPlatform.start({}, { hostSilenceMs: SILENCE_MS });
  people = await TestPeople.of(platform);
  adminToken = await people.logIn(await people.addUser({ isAdmin: true }), undefined);
  await platform.host.goSilent();
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

const asAdmin = (path: string, method = 'GET') => platform.call(`/v1/hosts/${path}`, { method, token: adminToken });
const hostOf = async (id: string) => (await asAdmin(id)).body;
const capsule = async (id: string) => (await platform.call(`/v1/capsules/${id}`)).body;
const verb = (id: string, name: string) => platform.call(`/v1/capsules/${id}/${name}`, { method: 'POST' });
const exec = (id: string) => platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'true' } });
const create = () => platform.call('/v1/capsules', { json: {} });
const untilStatus = (id: string, status: string) =>
  until(`${id} is ${status}`, async () => (await capsule(id)).status === status);
const newsOf = async (id: string) =>
  (await people.db.select().from(auditLog).where(eq(auditLog.resourceId, id))).map(({ action }) => action);

async function joined(online = 1): Promise<FleetHost> {
  const host = await FleetHost.join(platform, { adminToken });
  await host.online(online);
  return host;
}

async function leave(host: FleetHost): Promise<void> {
  expect((await asAdmin(`${host.id}?force=true`, 'DELETE')).status).toBe(204);
}

async function paused(): Promise<string> {
  const id = await platform.createCapsule();
  expect((await verb(id, 'pause')).status).toBe(200);
  return id;
}

/** As a backup has it that was made before. */
const restore = (id: string, fields: Partial<typeof capsules.$inferInsert>) =>
  people.db.update(capsules).set(fields).where(eq(capsules.id, id));

/** The agent connects anew, as it does with a control plane that was started. */
async function reconnect(host: FleetHost): Promise<void> {
  await host.loopback.restart();
  await host.online();
}

describe('a database that was restored from an old backup', () => {
  it('leaves microVMs alone that it does not know, and counts them', async () => {
    await using host = await joined();
    const [known, running] = [await platform.createCapsule(), await platform.createCapsule()];
    const sleeping = await paused();
    const lost = [running, sleeping];
    await people.db.delete(operations).where(inArray(operations.capsuleId, lost));
    await people.db.delete(capsules).where(inArray(capsules.id, lost));
    expect((await host.heartbeat()).status).toBe(200);
    expect((await hostOf(host.id)).unknown_vms).toBe(2);
    await reconnect(host);
    await host.heartbeat();
    expect((await hostOf(host.id)).unknown_vms).toBe(2);
    expect((await exec(known)).body.exit_code).toBe(0);
    // Neither is its host's deletion a reason to end what nobody here knows.
    await leave(host);
    await until('what was known has ended', () => !host.loopback.vmIds().includes(known));
    expect(host.loopback.vmIds().sort()).toEqual(lost.sort());
  });

  it('takes what a host has that is newer', async () => {
    await using host = await joined();
    const [woken, slept, sleptAgain] = [await paused(), await paused(), await paused()];
    await verb(woken, 'resume');
    await verb(sleptAgain, 'resume');
    await verb(sleptAgain, 'pause');
    await restore(woken, { status: 'paused' });
    await restore(slept, { status: 'running', generation: 0 });
    await restore(sleptAgain, { status: 'paused', generation: 1 });
    await host.heartbeat();
    await untilStatus(woken, 'running');
    await untilStatus(slept, 'paused');
    await reconnect(host);
    await until('its generation is known', async () => (await capsule(sleptAgain)).generation === 2);
    expect((await capsule(slept)).generation).toBe(1);
    for (const id of [slept, sleptAgain]) expect((await verb(id, 'resume')).body.status).toBe('running');
    expect((await exec(woken)).body.exit_code).toBe(0);
    await leave(host);
  });

  it('says of capsules that their host has nothing of them', async () => {
    await using host = await joined();
    const [running, sleeping] = [await platform.createCapsule(), await paused()];
    host.loopback.lose(running);
    host.loopback.lose(sleeping);
    await host.heartbeat();
    await untilStatus(running, 'error');
    await untilStatus(sleeping, 'error');
    expect((await capsule(running)).status_reason).toBe('its host no longer has its microVM');
    expect((await capsule(sleeping)).status_reason).toBe('its host no longer has its snapshot');
    await leave(host);
  });

  it('does not believe a heartbeat that was overtaken', async () => {
    await using host = await joined();
    const id = await platform.createCapsule();
    await host.heartbeat({ vms: [] });
    await host.heartbeat({ vms: [{ id, state: 'failed', generation: 0 }] });
    await host.heartbeat({ vms: [{ id: 'cl-of-nobody', state: 'running', generation: 0 }] });
    expect((await hostOf(host.id)).unknown_vms).toBe(1);
    expect((await capsule(id)).status).toBe('running');
    await host.heartbeat();
    expect((await hostOf(host.id)).unknown_vms).toBe(0);
    await leave(host);
  });
});

describe('a host whose disk is full', () => {
  it('gets nothing new as long as it says so, and its row says why', async () => {
    await using host = await joined();
    const id = await platform.createCapsule();
    host.facts = { disk_mb: 100_000, disk_free_mb: 3000 };
    await host.heartbeat();
    expect(await hostOf(host.id)).toMatchObject({
      status: 'online',
      disk_free_mb: 3000,
      problem: 'its disk is nearly full: 3000 of 100000 MiB are free',
    });
    const refused = await create();
    expect(refused).toMatchObject({ status: 503, body: { error: { reason: 'no_hosts_available' } } });
    expect(refused.body.error.message).toContain('disk');
    expect((await exec(id)).body.exit_code).toBe(0);
    host.facts = { disk_mb: 100_000, disk_free_mb: 60_000 };
    await host.heartbeat();
    expect((await hostOf(host.id)).problem).toBeNull();
    expect((await create()).status).toBe(201);
    await leave(host);
  });

  it('is passed over where another has room', async () => {
    await using host = await joined();
    await using other = await joined(2);
    await host.heartbeat({ disk_mb: 100_000, disk_free_mb: 3000 });
    for (let n = 0; n < 3; n += 1) await platform.createCapsule();
    expect(host.loopback.vmIds()).toEqual([]);
    expect(other.loopback.vmIds()).toHaveLength(3);
    await leave(host);
    await leave(other);
  });

  it('refuses by itself what it has no room for', async () => {
    await using host = await joined();
    host.loopback.beforeCreate = async () => {
      throw new WrennError('host_disk_full', { problem: 'test' });
    };
    const { status, body } = await create();
    expect([status, body.error.reason]).toEqual([507, 'host_disk_full']);
    host.loopback.behave();
    await leave(host);
  });
});

describe('a network that is cut', () => {
  it('for less than the time of grace costs nothing, and what happened meanwhile is told', async () => {
    await using host = await joined();
    const [calm, crashed] = [await platform.createCapsule(), await platform.createCapsule()];
    const slept = await platform.createCapsule();
    await host.loopback.goSilent();
    await until('that is noticed', async () => !(await fetch(`${platform.baseUrl}/ready`)).ok);
    const refused = await exec(calm);
    expect([refused.status, refused.body.error.reason, refused.body.error.retryable]).toEqual([
      503,
      'host_unavailable',
      true,
    ]);
    await host.loopback.crash(crashed);
    await host.loopback.pauseUnasked(slept);
    await host.loopback.listen();
    await host.online();
    expect((await exec(calm)).body.exit_code).toBe(0);
    await untilStatus(crashed, 'error');
    await untilStatus(slept, 'paused');
    for (const id of [calm, crashed, slept]) expect(await newsOf(id)).not.toContain('missing');
    expect(await newsOf(host.id)).not.toContain('unreachable');
    await leave(host);
  });

  it('for longer makes its capsules missing, and then what they are', { timeout: 180_000 }, async () => {
    await using host = await joined();
    const [calm, crashed] = [await platform.createCapsule(), await platform.createCapsule()];
    const [slept, gone] = [await platform.createCapsule(), await platform.createCapsule()];
    const sleeping = await paused();
    await host.loopback.goSilent();
    for (const id of [calm, crashed, slept, gone]) await untilStatus(id, 'missing');
    expect((await hostOf(host.id)).status).toBe('unreachable');
    // What sleeps misses nothing.
    expect((await capsule(sleeping)).status).toBe('paused');
    await host.loopback.crash(crashed);
    await host.loopback.pauseUnasked(slept);
    host.loopback.lose(gone);
    const ending = platform.call(`/v1/capsules/${calm}`, { method: 'DELETE' });
    await untilStatus(calm, 'stopping');
    await host.loopback.listen();
    await host.online();
    await untilStatus(crashed, 'error');
    await untilStatus(slept, 'paused');
    await untilStatus(gone, 'error');
    expect((await ending).status).toBe(204);
    expect((await verb(slept, 'resume')).body.status).toBe('running');
    const news = await newsOf(host.id);
    expect(news.filter((action) => action === 'unreachable')).toHaveLength(1);
    expect(news.filter((action) => action === 'online')).toHaveLength(2);
    await leave(host);
  });

  it('in one direction only makes nothing missing: heartbeats are a sign of life', async () => {
    await using host = await joined();
    const id = await platform.createCapsule();
    await host.loopback.goSilent();
    const sinceMs = performance.now();
    while (performance.now() - sinceMs < 1.3 * SILENCE_MS) {
      expect((await host.heartbeat()).body.status).toBe('online');
      expect((await capsule(id)).status).toBe('running');
    }
    // It cannot be asked, so nothing new is put there.
    expect((await create()).body.error.reason).toBe('no_hosts_available');
    await host.loopback.listen();
    await host.online();
    expect((await exec(id)).body.exit_code).toBe(0);
    await leave(host);
  });
});

describe('an agent of another version', () => {
  it('is not used, and its row says why until it fits', { timeout: 180_000 }, async () => {
    await using host = await joined();
    const id = await platform.createCapsule();
    const problem = 'this agent speaks version 9 of the host protocol, not 1 to 1';
    host.loopback.hello = () => {
      throw new WrennError('protocol_mismatch', { problem });
    };
    await host.loopback.restart();
    await until('that is known', async () => (await hostOf(host.id)).problem !== null);
    expect((await hostOf(host.id)).problem).toContain(problem);
    // That it lives is no reason to use it.
    expect((await host.heartbeat()).body.status).toBe('unreachable');
    expect((await create()).body.error.reason).toBe('no_hosts_available');
    await untilStatus(id, 'missing');
    host.loopback.hello = () => ({});
    await host.online();
    expect(await hostOf(host.id)).toMatchObject({ status: 'online', problem: null });
    await untilStatus(id, 'running');
    const refusals = people.db
      .select()
      .from(auditLog)
      .where(and(eq(auditLog.resourceId, host.id), eq(auditLog.action, 'unreachable')));
    expect((await refusals)[0]?.metadata).toMatchObject({ problem: expect.stringContaining(problem) });
    await leave(host);
  });
});
