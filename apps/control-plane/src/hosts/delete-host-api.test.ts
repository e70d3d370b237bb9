import { until } from '@wrenn/testing/until';
import { eq, type SQL, sql } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { capsules, objectDeletions, operations } from '../database/schema.ts';
import { untilBlocked } from '../testing/blocked.ts';
import { FleetHost } from '../testing/fleet-host.ts';
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

const remove = (host: FleetHost, query = '') =>
  platform.call(`/v1/hosts/${host.id}${query}`, { method: 'DELETE', token: adminToken });
const verb = (id: string, name: string) => platform.call(`/v1/capsules/${id}/${name}`, { method: 'POST' });
const statusOf = async (id: string) => (await platform.call(`/v1/capsules/${id}`)).body.status;
const untilStatus = (id: string, status: string) =>
  until(`${id} is ${status}`, async () => (await statusOf(id)) === status);
const capsuleRow = (id: string) => sql`SELECT FROM capsules WHERE id = ${id}`;
const teamLoadRow = (id: string) => sql`SELECT FROM team_load WHERE team_id = ${id}`;
const hostLoadRow = (id: string) => sql`SELECT FROM host_load WHERE host_id = ${id}`;
/** Fails where somebody holds it. */
const lockAtOnce = (row: SQL) => people.db.execute(sql`${row} FOR NO KEY UPDATE NOWAIT`);
const change = (id: string, fields: Partial<typeof capsules.$inferInsert>) =>
  people.db
    .update(capsules)
    .set({ ...fields, version: sql`${capsules.version} + 1` })
    .where(eq(capsules.id, id));

async function joined(): Promise<FleetHost> {
  const host = await FleetHost.join(platform, { adminToken });
  await host.online();
  return host;
}

/** A host with a capsule that runs and one that sleeps, which comes after it in the order of their ids. */
async function withTwo(): Promise<{ host: FleetHost; first: string; second: string }> {
  const host = await joined();
  await platform.createCapsule();
  await platform.createCapsule();
  const made = await people.db
    .select({ id: capsules.id })
    .from(capsules)
    .where(eq(capsules.hostId, host.id))
    .orderBy(capsules.id);
  const [first = '', second = ''] = made.map(({ id }) => id);
  expect((await verb(second, 'pause')).status).toBe(200);
  return { host, first, second };
}

/** Deletes a host by force, and does something while that waits for what was locked. */
async function deleteMeanwhile(host: FleetHost, locked: SQL, act: () => Promise<unknown>): Promise<void> {
  const { deleted } = await people.db.transaction(async (tx) => {
    await tx.execute(sql`${locked} FOR NO KEY UPDATE`);
    const begun = remove(host, '?force=true');
    await untilBlocked(people.db, 1, 'capsules');
    await act();
    return { deleted: begun };
  });
  expect((await deleted).status).toBe(204);
}

describe('a host that is deleted by force', () => {
  it('does not take along what reached the object store meanwhile', async () => {
    const { host, first, second } = await withTwo();
    await using _host = host;
    await deleteMeanwhile(host, capsuleRow(first), async () => {
      expect((await verb(second, 'hibernate')).status).toBe(200);
    });
    await untilStatus(first, 'stopped');
    expect(await statusOf(second)).toBe('hibernated');
    await using other = await joined();
    other.loopback.shareStoreOf(host.loopback);
    expect((await verb(second, 'resume')).body.status).toBe('running');
    expect((await remove(other, '?force=true')).status).toBe(204);
  });

  it('does not either when it is silent itself', async () => {
    const { host, first, second } = await withTwo();
    await using _host = host;
    await host.loopback.goSilent();
    await untilStatus(first, 'missing');
    const objectKey = `capsules/${second}/1-stored`;
    await deleteMeanwhile(host, capsuleRow(first), () => change(second, { status: 'hibernated', objectKey }));
    expect(await statusOf(first)).toBe('stopped');
    const [row] = await people.db.select().from(capsules).where(eq(capsules.id, second));
    expect(row).toMatchObject({ status: 'hibernated', objectKey });
  });

  it('holds nothing that others need who have a capsule of it', async () => {
    const { host, first, second } = await withTwo();
    await using _host = host;
    await host.loopback.goSilent();
    await untilStatus(first, 'missing');
    await deleteMeanwhile(host, capsuleRow(second), () => lockAtOnce(hostLoadRow(host.id)));
    expect([await statusOf(first), await statusOf(second)]).toEqual(['stopped', 'stopped']);
  });

  it('comes to the teams of its capsules in the order in which every other one does', async () => {
    const { host, first, second } = await withTwo();
    await using _host = host;
    await host.loopback.goSilent();
    await untilStatus(first, 'missing');
    const [one = '', other = ''] = [await people.addTeam(), await people.addTeam()].toSorted();
    await change(first, { teamId: other });
    await change(second, { teamId: one });
    await deleteMeanwhile(host, teamLoadRow(one), () => lockAtOnce(teamLoadRow(other)));
    const ended = await people.db.select().from(capsules).where(eq(capsules.hostId, host.id));
    expect(ended.map(({ status }) => status)).toEqual(['stopped', 'stopped']);
  });

  it('has what its capsules had in the object store removed', async () => {
    const { host, first, second } = await withTwo();
    await using _host = host;
    await host.loopback.goSilent();
    await untilStatus(first, 'missing');
    const objectKey = `capsules/${second}/1-needless`;
    await change(second, { status: 'resuming', objectKey, updatedAt: new Date() });
    expect((await remove(host, '?force=true')).status).toBe(204);
    expect(await statusOf(second)).toBe('stopped');
    expect(await people.db.select().from(objectDeletions).where(eq(objectDeletions.objectKey, objectKey))).toHaveLength(
      1,
    );
  });
});

describe('a capsule whose host was deleted', () => {
  it('can be destroyed', async () => {
    await using host = await joined();
    const id = await platform.createCapsule();
    await host.loopback.forget(id);
    await untilStatus(id, 'error');
    expect((await remove(host)).status).toBe(204);
    await host.loopback.goSilent();
    expect((await platform.call(`/v1/capsules/${id}`, { method: 'DELETE' })).status).toBe(204);
    expect(await statusOf(id)).toBe('stopped');
    const ended = await people.db.select().from(operations).where(eq(operations.capsuleId, id));
    expect(ended.map(({ kind, state }) => [kind, state]).toSorted()).toEqual([
      ['capsule.create', 'succeeded'],
      ['capsule.destroy', 'succeeded'],
    ]);
  });
});
