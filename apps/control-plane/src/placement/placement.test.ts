import { Turns } from '@wrenn/config/turns';
import { newId } from '@wrenn/protocol/ids';
import { eq, sql } from 'drizzle-orm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Database } from '../database/database.ts';
import { hosts, hostTags, publishedTemplates } from '../database/host-schema.ts';
import { teams } from '../database/people-schema.ts';
import { capsules } from '../database/schema.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import type { Needs, SnapshotPlace } from './needs.ts';
import { type PlacementDeps, placeCapsule, reserveOn } from './place-capsule.ts';
import { DEFAULT_PLACEMENT } from './placement-settings.ts';

const TEAM = 'team-of-the-platform';
const BYOC_TEAM = 'team-with-hosts';
const OTHER_BYOC_TEAM = 'team-without-hosts';
const deps: PlacementDeps = { settings: DEFAULT_PLACEMENT };

let database: Database;
let db: Database['db'];

beforeAll(async () => {
  database = await openTestDatabase();
  db = database.db;
  await db.insert(teams).values([
    { id: TEAM, name: 'a', slug: 'a' },
    { id: BYOC_TEAM, name: 'b', slug: 'b', isByoc: true },
    { id: OTHER_BYOC_TEAM, name: 'c', slug: 'c', isByoc: true },
  ]);
});
afterAll(() => database[Symbol.asyncDispose]());
beforeEach(async () => {
  await db.delete(capsules);
  await db.delete(hosts);
  await db.delete(publishedTemplates);
});

async function addHost(
  changes: Partial<typeof hosts.$inferInsert> = {},
  tags: readonly string[] = [],
): Promise<string> {
  const id = newId('host');
  await db.insert(hosts).values({
    ...{ id, status: 'online', arch: 'x86_64', cpuCount: 4, memoryMb: 10_000, diskMb: 200_000, diskFreeMb: 150_000 },
    ...{ hypervisor: 'qemu', hypervisorVersion: '7.2', accelerator: 'tcg', templates: ['minimal'] },
    ...changes,
  });
  if (tags.length > 0) await db.insert(hostTags).values(tags.map((tag) => ({ hostId: id, tag })));
  return id;
}

const needs = (changes: Partial<Needs> = {}): Needs => ({
  ...{ teamId: TEAM, vcpus: 1, memoryMb: 512, diskMb: 0, template: 'minimal' },
  ...changes,
});

const place = (wanted: Needs = needs(), own = deps) => db.transaction((tx) => placeCapsule(tx, own, wanted));

/** Places a capsule and inserts it, as a create does. */
const create = (wanted: Needs = needs(), changes: Partial<typeof capsules.$inferInsert> = {}) =>
  db.transaction(async (tx) => {
    const hostId = await placeCapsule(tx, deps, wanted);
    await tx.insert(capsules).values(capsuleOn(hostId, wanted, changes));
    return hostId;
  });

function capsuleOn(
  hostId: string,
  { teamId, vcpus, memoryMb, diskMb }: Needs,
  changes: Partial<typeof capsules.$inferInsert> = {},
): typeof capsules.$inferInsert {
  return {
    ...{ id: newId('cl'), teamId, hostId, template: 'minimal', status: 'pending', vcpus, memoryMb },
    ...{ diskRequestMb: diskMb, timeoutSec: 0, envs: {}, labels: {}, versions: {}, accessToken: '' },
    ...changes,
  };
}

/** Runs it so many times, ten at once: there are no more connections, and nobody waits for one for ever. */
function manyAtOnce<T>(count: number, run: () => Promise<T>): Promise<PromiseSettledResult<T>[]> {
  const turns = new Turns(10);
  const { signal } = new AbortController();
  return Promise.allSettled(Array.from({ length: count }, () => turns.take(run, signal)));
}

describe('filters', () => {
  it('takes a host that is online and not cordoned', async () => {
    await expect(place()).rejects.toMatchObject({
      code: 'no_hosts_available',
      details: { problem: 'no host is online' },
    });
    await addHost({ status: 'unreachable' });
    await addHost({ status: 'pending' });
    await addHost({ deletedAt: new Date() });
    await expect(place()).rejects.toMatchObject({ details: { problem: 'no host is online' } });
    await addHost({ status: 'draining' });
    await addHost({ cordonedAt: new Date() });
    await expect(place()).rejects.toMatchObject({ details: { problem: expect.stringContaining('cordoned') } });
    const good = await addHost();
    expect(await place()).toBe(good);
  });

  it('takes only hosts that this control plane reaches', async () => {
    const far = await addHost({ memoryMb: 100_000, cpuCount: 64 });
    const near = await addHost();
    const reaching = (...ids: string[]) => ({ ...deps, isReachable: (id: string) => ids.includes(id) });
    expect(await place()).toBe(far);
    expect(await place(needs(), reaching(near))).toBe(near);
    await expect(place(needs(), reaching())).rejects.toMatchObject({ details: { problem: 'no host is online' } });
  });

  it('reaches hosts behind many better ones that it does not reach', async () => {
    for (let i = 0; i < 20; i++) await addHost({ memoryMb: 100_000, cpuCount: 64 });
    const near = await addHost();
    expect(await place(needs(), { ...deps, isReachable: (id: string) => id === near })).toBe(near);
  });

  it("keeps a team's own hosts for that team, and that team on them", async () => {
    const regular = await addHost();
    expect(await place()).toBe(regular);
    await expect(place(needs({ teamId: BYOC_TEAM }))).rejects.toMatchObject({
      details: { problem: 'no host that this team may use is online' },
    });
    const own = await addHost({ type: 'byoc', teamId: BYOC_TEAM, memoryMb: 100_000 });
    expect(await place(needs({ teamId: BYOC_TEAM }))).toBe(own);
    expect(await place()).toBe(regular);
    await expect(place(needs({ teamId: OTHER_BYOC_TEAM }))).rejects.toMatchObject({ code: 'no_hosts_available' });
  });

  it('takes a host that has the template', async () => {
    const [, with2] = [await addHost({ memoryMb: 50_000 }), await addHost({ templates: ['minimal', 'python'] })];
    expect(await place(needs({ template: 'python' }))).toBe(with2);
    await expect(place(needs({ template: 'ruby' }))).rejects.toMatchObject({
      code: 'template_not_found',
      details: { name: 'ruby' },
    });
    expect(await place(needs({ template: undefined }))).toBeTypeOf('string');
  });

  it('takes a host that is large enough for the shape', async () => {
    await addHost({ cpuCount: 2, memoryMb: 64_000 });
    const wide = await addHost({ cpuCount: 8, memoryMb: 8000 });
    expect(await place(needs({ vcpus: 4 }))).toBe(wide);
    await expect(place(needs({ vcpus: 16 }))).rejects.toMatchObject({
      code: 'invalid_shape',
      details: { vcpus: 16, problem: 'the largest host has 8 vCPUs and 64000 MiB of memory' },
    });
    await expect(place(needs({ memoryMb: 65_000 }))).rejects.toMatchObject({ code: 'invalid_shape' });
  });

  it('takes a host that has all tags asked for', async () => {
    await addHost({ memoryMb: 90_000 });
    await addHost({ memoryMb: 80_000 }, ['gpu']);
    const both = await addHost({}, ['gpu', 'zone=a', 'ssd']);
    expect(await place(needs({ hostTags: ['zone=a', 'gpu', 'gpu'] }))).toBe(both);
    await expect(place(needs({ hostTags: ['gpu', 'tpu'] }))).rejects.toMatchObject({
      code: 'no_hosts_available',
      details: { problem: 'no host has the tags gpu, tpu' },
    });
  });

  it.each([
    { arch: 'aarch64' },
    { hypervisor: 'firecracker' },
    { hypervisorVersion: '10.0' },
    { accelerator: 'kvm' },
    { cpu: 'other' },
  ])('wakes a memory only on a machine like the one where it was saved: %o', async (other) => {
    const saved = await addHost({ status: 'unreachable' });
    await addHost(other);
    await expect(place(needs({ likeHostId: saved }))).rejects.toMatchObject({
      details: { problem: expect.stringContaining('architecture') },
    });
    const same = await addHost();
    expect(await place(needs({ likeHostId: saved }))).toBe(same);
  });

  describe('of what a capsule is made of', () => {
    const store = { objectStore: 'a', cpu: 'max' };
    const where = (hostId: string, more: Partial<SnapshotPlace> = {}): Partial<Needs> => {
      return { template: undefined, snapshot: { hostId, copies: [], objectKey: null, ...more } };
    };

    it('takes a host that can fetch the template from another, or from where it was put', async () => {
      const { objectStore } = store;
      await addHost({ objectStore: 'b', memoryMb: 90_000, cpuCount: 64 });
      await addHost({ arch: 'aarch64', objectStore, memoryMb: 90_000, cpuCount: 64 });
      const lacks = await addHost({ objectStore });
      const python = needs({ template: 'python' });
      await expect(place(python)).rejects.toMatchObject({ code: 'template_not_found' });
      const has = await addHost({ objectStore, templates: ['python'], cordonedAt: new Date() });
      expect(await place(python)).toBe(lacks);
      await db.update(hosts).set({ status: 'unreachable' }).where(eq(hosts.id, has));
      await expect(place(python)).rejects.toMatchObject({ code: 'template_not_found' });
      await db
        .insert(publishedTemplates)
        .values({ objectStore, arch: 'x86_64', name: 'python', teamId: null, objectKey: 'images/1' });
      expect(await place(python)).toBe(lacks);
    });

    it("gives no team what another team's hosts have", async () => {
      const python = (teamId: string) => needs({ teamId, template: 'python' });
      const platforms = await addHost(store);
      const own = await addHost({ ...store, type: 'byoc', teamId: BYOC_TEAM });
      const has = await addHost({ ...store, type: 'byoc', teamId: BYOC_TEAM, templates: ['python'], memoryMb: 400 });
      expect(await place(python(BYOC_TEAM))).toBe(own);
      await expect(place(python(TEAM))).rejects.toMatchObject({ code: 'template_not_found' });
      await db.update(hosts).set({ type: 'regular', teamId: null }).where(eq(hosts.id, has));
      expect(await place(python(TEAM))).toBe(platforms);
      expect(await place(python(BYOC_TEAM))).toBe(own);
    });

    it('takes a host that has it before one that is hardly emptier, and after one that is much emptier', async () => {
      const has = await addHost({ ...store, templates: ['python'] });
      const lacks = await addHost(store);
      const python = needs({ template: 'python' });
      for (let i = 0; i < 5; i++) expect(await place(python)).toBe(has);
      await db.insert(capsules).values(capsuleOn(has, needs({ memoryMb: 6000 })));
      expect(await place(python)).toBe(lacks);
    });

    it('takes a host that has the snapshot, or one like it that can fetch it', async () => {
      const made = await addHost(store);
      const needsIt = (more: Partial<SnapshotPlace> = {}) => needs(where(made, more));
      expect(await place(needsIt())).toBe(made);
      await addHost({ ...store, objectStore: 'b' });
      await addHost({ ...store, cpu: 'other' });
      await addHost({ ...store, hypervisor: 'firecracker' });
      await db.update(hosts).set({ cordonedAt: new Date() }).where(eq(hosts.id, made));
      await expect(place(needsIt())).rejects.toMatchObject({
        details: { problem: expect.stringContaining('cordoned') },
      });
      const like = await addHost(store);
      expect(await place(needsIt())).toBe(like);
      // Nobody can put it into the store now.
      await db.update(hosts).set({ status: 'unreachable' }).where(eq(hosts.id, made));
      await expect(place(needsIt())).rejects.toMatchObject({
        details: { problem: 'no host that has the snapshot, or can fetch it, is online' },
      });
      expect(await place(needsIt({ copies: [like] }))).toBe(like);
      expect(await place(needsIt({ objectKey: 'snapshots/1' }))).toBe(like);
    });

    it('wakes a hibernated capsule where its object store is', async () => {
      const saved = await addHost({ ...store, status: 'unreachable' });
      await addHost({ ...store, objectStore: 'b' });
      await expect(place(needs({ likeHostId: saved }))).rejects.toMatchObject({
        details: { problem: 'no host is online that uses the object store where it sleeps' },
      });
      const other = await addHost(store);
      expect(await place(needs({ likeHostId: saved }))).toBe(other);
    });
  });

  it('leaves a host alone whose disk is nearly full', async () => {
    await addHost({ diskMb: 100_000, diskFreeMb: 4999 });
    await expect(place()).rejects.toMatchObject({ details: { problem: expect.stringContaining('nearly full') } });
    const good = await addHost({ diskMb: 100_000, diskFreeMb: 5000 });
    expect(await place()).toBe(good);
    await db.delete(hosts);
    const silent = await addHost({ diskMb: null, diskFreeMb: null });
    expect(await place()).toBe(silent);
  });
});

describe('room', () => {
  it('never gives away more memory than a host has beyond its own share', async () => {
    await addHost({ memoryMb: 2048, cpuCount: 1 });
    for (let i = 0; i < 3; i++) await create();
    await expect(create()).rejects.toMatchObject({
      code: 'no_hosts_available',
      details: { problem: '512 MiB of memory were asked for, and no host has more than 307 MiB left' },
    });
  });

  it('never gives away more disk than the setting allows', async () => {
    await addHost({ diskMb: 10_000, diskFreeMb: 10_000 });
    await create(needs({ diskMb: 17_500 }));
    await expect(create()).rejects.toMatchObject({
      details: { problem: '1024 MiB of disk were asked for, and no host has more than 500 MiB left' },
    });
  });

  it('counts sleepers in part, and those that are away or ended not at all', async () => {
    const host = await addHost({ memoryMb: 10_000, diskMb: null });
    const whole = needs({ memoryMb: 9000 });
    await db.insert(capsules).values(capsuleOn(host, whole, { status: 'paused' }));
    expect(await place(needs({ memoryMb: 4500 }))).toBe(host);
    await expect(place(needs({ memoryMb: 4501 }))).rejects.toMatchObject({ code: 'no_hosts_available' });
    await db.update(capsules).set({ status: 'hibernated' });
    expect(await place(whole)).toBe(host);
    await db.update(capsules).set({ status: 'error' });
    expect(await place(whole)).toBe(host);
    await db.update(capsules).set({ status: 'missing' });
    await expect(place(needs({ memoryMb: 1 }))).rejects.toMatchObject({ code: 'no_hosts_available' });
  });

  it('lets more of a capsule run on its own host as long as there is room, also on a cordoned one', async () => {
    const host = await addHost({ memoryMb: 10_000, cordonedAt: new Date() });
    const reserve = (memoryMb: number) => db.transaction((tx) => reserveOn(tx, deps, host, { memoryMb, diskMb: 0 }));
    await reserve(9000);
    await expect(reserve(9001)).rejects.toMatchObject({
      code: 'no_hosts_available',
      details: { problem: 'it needs 9001 MiB more of memory, and its host has 9000 MiB left' },
    });
  });
});

describe('spreading', () => {
  it('fills hosts of different sizes in proportion', async () => {
    const sizes = [20_000, 40_000, 80_000];
    const ids = await Promise.all(
      sizes.map((memoryMb) =>
        addHost({ memoryMb, cpuCount: memoryMb / 500, diskMb: memoryMb * 20, diskFreeMb: memoryMb * 20 }),
      ),
    );
    const small = needs({ memoryMb: 256 });
    for (let i = 0; i < 200; i++) await create(small);
    const { rows } = await db.execute<{ host_id: string; share: number }>(
      sql`SELECT l.host_id, l.memory_mb / h.memory_mb::float8 AS share FROM host_load l JOIN hosts h ON h.id = l.host_id`,
    );
    expect(rows.map(({ host_id }) => host_id).toSorted()).toEqual(ids.toSorted());
    const shares = rows.map(({ share }) => share);
    // No two are further from each other than one capsule on the smallest.
    expect(Math.max(...shares) - Math.min(...shares)).toBeLessThanOrEqual(256 / 20_000);
  });

  it('takes equals at random', async () => {
    for (let i = 0; i < 4; i++) await addHost();
    const taken = new Set<string>();
    for (let i = 0; i < 60; i++) taken.add(await place());
    expect(taken.size).toBe(4);
  });

  it('never gives the same room to two at once, and all of it to as many as fit', async () => {
    // Room for 3 + 7 + 14 capsules.
    for (const memoryMb of [2048, 4096, 8192]) await addHost({ memoryMb, cpuCount: 64 });
    const results = await manyAtOnce(50, () => create());
    const refused = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
    expect(refused.map((error) => error.code ?? error)).toEqual(Array(26).fill('no_hosts_available'));
    const { rows } = await db.execute<{ used: number; memory: number }>(
      sql`SELECT l.memory_mb::int AS used, h.memory_mb AS memory FROM host_load l JOIN hosts h ON h.id = l.host_id`,
    );
    for (const { used, memory } of rows) expect(used).toBeLessThanOrEqual(memory * 0.9);
    expect(rows.map(({ used }) => used).toSorted((a, b) => a - b)).toEqual([3 * 512, 7 * 512, 14 * 512]);
  });

  it('fills equals evenly in a burst, also where one of them takes longer to be filled', async () => {
    const hosts: string[] = [];
    for (let i = 0; i < 3; i++) hosts.push(await addHost({ memoryMb: 100_000, cpuCount: 100, diskMb: 1_000_000 }));
    const createSlowly = () =>
      db.transaction(async (tx) => {
        const hostId = await placeCapsule(tx, deps, needs());
        await tx.insert(capsules).values(capsuleOn(hostId, needs(), {}));
        await tx.execute(sql`SELECT pg_sleep(${hostId === hosts[0] ? 0.03 : 0.001})`);
        return hostId;
      });
    const taken = await manyAtOnce(90, createSlowly);
    expect(taken.filter(({ status }) => status === 'rejected')).toEqual([]);
    const counts = hosts.map((id) => taken.filter((each) => each.status === 'fulfilled' && each.value === id).length);
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(4);
  });

  it('gives the next best host to whoever comes while the best one is being taken', async () => {
    const best = await addHost({ memoryMb: 20_000, cpuCount: 8 });
    const next = await addHost();
    await db.transaction(async (tx) => {
      expect(await placeCapsule(tx, deps, needs())).toBe(best);
      expect(await place()).toBe(next);
    });
  });
});

it('waits for nobody while it holds a host that turned out to be full', async () => {
  // Many small hosts that fill up all the time, looked through in different orders.
  for (let i = 0; i < 12; i++) await addHost({ memoryMb: 1200 + i, cpuCount: 64 });
  for (let round = 0; round < 4; round++) {
    const results = await manyAtOnce(40, () => create());
    const refused = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
    expect(refused.map((error) => error.code ?? error)).toEqual(Array(16).fill('no_hosts_available'));
    await db.delete(capsules);
  }
});
