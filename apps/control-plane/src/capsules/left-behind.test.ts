import { newId } from '@wrenn/protocol/ids';
import type { CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import { until } from '@wrenn/testing/until';
import { eq, sql } from 'drizzle-orm';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { hosts } from '../database/host-schema.ts';
import { capsules } from '../database/schema.ts';
import { runJob } from '../testing/run-job.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

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
afterEach(() => platform.host.behave());

const settle = () => runJob(platform.databaseUrl, 'settle-capsules');
const verb = (id: string, name: string) => platform.call(`/v1/capsules/${id}/${name}`, { method: 'POST' });
const get = async (id: string) => (await platform.call(`/v1/capsules/${id}`)).body;
const untilStatus = (id: string, status: string) =>
  until(`${id} is ${status}`, async () => (await get(id)).status === status);

/** As a control plane leaves it that dies and whose operation is lost with it. */
async function leaveIn(id: string, status: CapsuleStatus, fields: Partial<typeof capsules.$inferInsert> = {}) {
  await people.db
    .update(capsules)
    .set({ status, ...fields, updatedAt: sql`now() - interval '1 minute'` })
    .where(eq(capsules.id, id));
}

async function deletedHost(): Promise<string> {
  const id = newId('host');
  await people.db.insert(hosts).values({ id, status: 'deleted', deletedAt: new Date() });
  return id;
}

async function paused(): Promise<string> {
  const id = await platform.createCapsule();
  expect((await verb(id, 'pause')).status).toBe(200);
  return id;
}

describe('a capsule that was left in the middle of something', () => {
  const busyOfRunning = ['starting', 'pausing', 'forking', 'resuming'] as const;
  it.each(busyOfRunning)('and is %s runs where its host says so', async (status) => {
    const id = await platform.createCapsule();
    await leaveIn(id, status);
    await settle();
    await untilStatus(id, 'running');
    const exec = await platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'true' } });
    expect(exec.body.exit_code).toBe(0);
  });

  it.each(['pausing', 'resuming', 'hibernating'] as const)(
    'and is %s sleeps where its host says so',
    async (status) => {
      const id = await paused();
      // What a pause wrote last was before it.
      await leaveIn(id, status, status === 'pausing' ? { generation: 0 } : {});
      await settle();
      await untilStatus(id, 'paused');
      expect(await get(id)).toMatchObject({ generation: 1, snapshot_bytes: 4096 });
      expect((await verb(id, 'resume')).body.status).toBe('running');
    },
  );

  it('and was woken from the object store is there still, where its host has nothing', async () => {
    const id = await paused();
    await verb(id, 'hibernate');
    await leaveIn(id, 'resuming');
    await settle();
    await untilStatus(id, 'hibernated');
    expect((await verb(id, 'resume')).body.status).toBe('running');
  });

  it.each(['pending', 'starting', 'resuming', 'forking'] as const)(
    'and is %s has failed without a microVM',
    async (status) => {
      const id = await platform.createCapsule();
      await platform.host.forget(id);
      await untilStatus(id, 'error');
      await leaveIn(id, status);
      await settle();
      await untilStatus(id, 'error');
      expect((await get(id)).status_reason).toBe('it was left in the middle of an operation');
    },
  );

  it('and is stopping ends, as was asked', async () => {
    const id = await platform.createCapsule();
    await leaveIn(id, 'stopping');
    await settle();
    await untilStatus(id, 'stopped');
    await until('its host has it no more', () => !platform.host.vmIds().includes(id));
  });

  it('waits for a host that is silent', async () => {
    const id = await platform.createCapsule();
    await platform.host.goSilent();
    await until('nobody is online', async () => !(await fetch(`${platform.baseUrl}/ready`)).ok);
    await leaveIn(id, 'starting');
    await settle();
    expect((await get(id)).status).toBe('starting');
    await platform.host.listen();
    await untilStatus(id, 'running');
  });

  it('has failed when its host was deleted meanwhile', async () => {
    const id = await platform.createCapsule();
    await leaveIn(id, 'starting', { hostId: await deletedHost() });
    await settle();
    await untilStatus(id, 'error');
  });

  it('and is stopping ends also when its host was deleted', async () => {
    const id = await platform.createCapsule();
    await leaveIn(id, 'stopping', { hostId: await deletedHost() });
    await settle();
    await untilStatus(id, 'stopped');
  });

  it('is left to an operation that works on it, and to one that just ended', async () => {
    const release = Promise.withResolvers<void>();
    const held = Promise.withResolvers<string>();
    platform.host.beforeCreate = async ({ id }) => {
      held.resolve(id);
      await release.promise;
    };
    const made = platform.createCapsule();
    const id = await held.promise;
    await leaveIn(id, 'starting');
    await settle();
    expect((await get(id)).status).toBe('starting');
    release.resolve();
    expect(await made).toBe(id);
    expect((await get(id)).status).toBe('running');
    await people.db.update(capsules).set({ status: 'pausing', updatedAt: sql`now()` }).where(eq(capsules.id, id));
    await settle();
    expect((await get(id)).status).toBe('pausing');
  });
});

describe('a capsule that came to a host as that was deleted', () => {
  it.each(['running', 'missing', 'paused'] as const)('and is %s ends with it', async (status) => {
    const id = await platform.createCapsule();
    await leaveIn(id, status, { hostId: await deletedHost(), generation: 1 });
    await settle();
    expect(await get(id)).toMatchObject({ status: 'stopped', status_reason: 'its host was deleted' });
  });

  it.each([
    ['hibernated', 1],
    ['error', 0],
  ] as const)('and is %s stays as it is', async (status, generation) => {
    const id = await platform.createCapsule();
    await leaveIn(id, status, { hostId: await deletedHost(), generation });
    await settle();
    expect((await get(id)).status).toBe(status);
  });
});
