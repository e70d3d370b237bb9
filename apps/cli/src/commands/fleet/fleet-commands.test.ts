import { TestPeople } from '@wrenn/control-plane/testing/test-people';
import { TestPlatform } from '@wrenn/control-plane/testing/test-platform';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Platform, runCommand } from '../../testing/run-command.ts';

let platform: TestPlatform;
let people: TestPeople;
let teamId: string;
let admin: Platform;
let member: Platform;
beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
  const root = await people.addUser({ isAdmin: true });
  teamId = await people.addTeam([{ user: root, role: 'owner' }]);
  admin = await asUser(await people.logIn(root, teamId));
  member = await asUser((await people.logInNew(teamId, 'member')).token);
});
afterAll(async () => {
  await people?.[Symbol.asyncDispose]();
  await platform?.[Symbol.asyncDispose]();
});

async function asUser(loginToken: string): Promise<Platform> {
  const { key } = await people.addKey(teamId);
  return { baseUrl: platform.baseUrl, apiKey: key, loginToken };
}

async function run(who: Platform, ...args: string[]): Promise<string> {
  return (await runCommand(who, args)).stdout.trimEnd();
}

async function json(who: Platform, ...args: string[]) {
  return JSON.parse(await run(who, ...args, '--json'));
}

describe('wrenn host', () => {
  it('makes, tags, cordons, drains and removes a host', async () => {
    const made = await json(admin, 'host', 'create', '--zone', 'fra1', '--tag', 'GPU');
    const { id } = made.host;
    const short = id.slice('host-'.length, 20);
    expect(made.registration_token).not.toBe(await run(admin, 'host', 'token', short));
    await run(admin, 'host', 'tag', short, 'big', 'fast');
    await run(admin, 'host', 'untag', short, 'big');
    expect(await run(admin, 'host', 'cordon', short)).toBe(id);
    expect(await json(admin, 'host', 'inspect', short)).toMatchObject({
      ...{ availability_zone: 'fra1', cordoned: true, tags: ['fast', 'gpu'], status: 'pending' },
    });
    expect(await run(admin, 'host', 'ls')).toMatch(
      new RegExp(`^${id} +pending, cordoned +regular .* fast gpu +-$`, 'm'),
    );
    await run(admin, 'host', 'uncordon', short);
    await run(admin, 'host', 'drain', '--stay', short);
    expect(await json(admin, 'host', 'inspect', short)).toMatchObject({ drain: 'pause', cordoned: true });
    expect(await run(admin, 'host', 'inspect', short)).toMatch(/^ {2}Status +pending, empty, cordoned$/m);
    await run(admin, 'host', 'undrain', short);
    expect(await json(admin, 'host', 'inspect', short)).toMatchObject({ drain: null, cordoned: false });
    expect(await json(admin, 'host', 'rm', '--preview', short)).toMatchObject({ sandbox_ids: [], snapshots: [] });
    expect(await run(admin, 'host', 'rm', short)).toBe(id);
    await expect(run(admin, 'host', 'cordon', short)).rejects.toThrow('There is no host');
  });

  it('shows what would be lost with a host, and removes none that has capsules', async () => {
    const [{ id }] = await json(admin, 'host', 'ls');
    const capsule = await run(admin, 'create');
    expect(await run(admin, 'host', 'rm', '--preview', id)).toBe(capsule);
    await expect(run(admin, 'host', 'rm', id)).rejects.toThrow('still has 1 capsules');
    await run(admin, 'rm', capsule);
  });

  it('is for the hosts of a team too, once it may bring them', async () => {
    const byoc = ['host', 'create', '--type', 'byoc', '--team', teamId];
    await expect(run(admin, ...byoc)).rejects.toThrow('may not bring its own hosts');
    const ownTeam = await people.addTeam();
    await run(admin, 'admin', 'byoc', ownTeam);
    const owner = await asUser((await people.logInNew(ownTeam, 'owner')).token);
    const { host } = await json(owner, 'host', 'create', '--type', 'byoc');
    expect((await json(owner, 'host', 'ls')).map(({ id }: { id: string }) => id)).toEqual([host.id]);
    expect(await json(member, 'host', 'ls')).toEqual([]);
    await expect(run(owner, 'host', 'create')).rejects.toThrow();
  });
});

describe('what capsules use', () => {
  it('is shown by the commands for it, as the API answers it', async () => {
    const capsule = await run(admin, 'create', '--label', 'project=wren', '--vcpus', '1');
    const usage = await json(admin, 'usage', '--label', 'project');
    expect(usage.points.map(({ label }: { label: string | null }) => label)).toContain('wren');
    expect(await run(admin, 'usage', '--by', 'capsule', '--csv')).toContain(`\n${capsule},`);
    expect((await json(admin, 'usage', '--all-teams')).teams).toMatchObject([{ team_id: teamId }]);
    expect((await json(admin, 'stats')).current).toMatchObject({ running_count: 1, vcpus_reserved: 1 });
    expect(await json(admin, 'metrics', capsule)).toMatchObject({ sandbox_id: capsule, range: '10m' });
    const pool = await json(admin, 'pool', 'set', teamId, '--vcpus', '1', '--memory', '2G', '--disk', 'none');
    expect(pool).toMatchObject({ limits: { vcpus: 1, memory_mb: 2048, disk_mb: null }, used: { vcpus: 1 } });
    await expect(run(admin, 'create')).rejects.toThrow('too few');
    await expect(run(member, 'pool', 'set', teamId, '--vcpus', '9', '--memory', '1', '--disk', '1')).rejects.toThrow();
    expect(await json(member, 'pool', 'show')).toEqual(pool);
    const budget = await json(admin, 'budget', 'set', '200', '--warn-at', '75');
    expect(budget).toMatchObject({ monthly: 200, warn_at_pct: 75, on_exceeded: 'sleep' });
    expect(await json(admin, 'budget', 'show')).toMatchObject({ monthly: 200, warn_at_pct: 75 });
    await run(admin, 'pool', 'set', teamId, '--vcpus', 'none', '--memory', 'none', '--disk', 'none');
    await run(admin, 'rm', capsule);
  });
});
