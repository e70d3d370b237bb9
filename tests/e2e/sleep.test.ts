import { mkdir, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ConnectError } from '@connectrpc/connect';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { fromConnectError } from '@wrenn/protocol/connect-errors';
import { MemoryUse, type Vm, VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { newId } from '@wrenn/protocol/ids';
import { until } from '@wrenn/testing/until';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { clockError, runInGuest, TestAgent } from './support/host-agent.ts';
import { leaksSince, type MachineState, machineState } from './support/leaks.ts';

const SHAPE = { vcpus: 1, memoryMb: 256 };
const TOKEN = 'token-of-this-test';
const READY_SLOTS = 2;

let agent: TestAgent;
let idle: MachineState;

beforeAll(async () => {
  agent = await TestAgent.create(undefined, { WRENN_WARM_POOL_MAX_MB: '0' });
  await agent.start();
  const { id } = await create();
  await agent.client.destroyVm({ id });
  idle = await machineState(agent.dir);
});
afterAll(() => agent[Symbol.asyncDispose]());
afterEach(async () => {
  for (const { id } of (await agent.client.listVms({})).vms) await agent.client.destroyVm({ id });
  expect(await leaksSince(idle, agent.dir, { readySlots: READY_SLOTS })).toEqual([]);
});

function init(accessToken = TOKEN, hostname = 'named-by-test') {
  return { accessToken, envs: { COLOUR: 'green' }, hostname };
}

async function create(over: object = {}): Promise<Vm> {
  const { vm } = await agent.client.createVm({
    id: newId('cl'),
    template: 'minimal',
    shape: SHAPE,
    init: init(),
    ...over,
  });
  return present(vm);
}

async function pause(id: string, generation = 1): Promise<Vm> {
  return present((await agent.client.pauseVm({ id, generation })).vm);
}

async function resume(id: string, generation = 1, over: object = {}): Promise<Vm> {
  return present((await agent.client.resumeVm({ id, generation, init: init(), ...over })).vm);
}

function present<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('the answer is empty');
  return value;
}

async function errorOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'none',
    (error: unknown) => fromConnectError(ConnectError.from(error)).code,
  );
}

async function sh(vm: Vm, script: string, token = TOKEN): Promise<string> {
  return ((await runInGuest(vm.hostIp, token, script)) ?? 'ended').trim();
}

/** A program with state in memory, and a file that it wrote. */
const COUNTER = `
cat > /tmp/counter.sh <<'PROGRAM'
echo $$ > /tmp/counter.pid
n=0; while true; do n=$((n+1)); echo $n > /tmp/new; mv /tmp/new /tmp/count; sleep 0.2; done
PROGRAM
setsid sh /tmp/counter.sh >/dev/null 2>&1 < /dev/null &
while [ ! -s /tmp/counter.pid ]; do sleep 0.1; done
head -c 300000 /dev/urandom > ~/data; sync; sha256sum < ~/data
`;

/** The pid of the counter; nothing where it has ended. */
function counterPid(vm: Vm, token = TOKEN): Promise<string> {
  return sh(vm, 'pid=$(cat /tmp/counter.pid); kill -0 $pid && echo $pid', token);
}

describe('pause and resume', () => {
  it('keep memory and disk, end every process meanwhile, and set the clock', async () => {
    const vm = await create();
    const sum = await sh(vm, COUNTER);
    const asleep = await pause(vm.id);
    expect(asleep).toMatchObject({ state: VmState.PAUSED, generation: 1, template: 'minimal', shape: SHAPE });
    expect(Number(asleep.snapshotBytes)).toBeGreaterThan(1024 * 1024);
    expect((await agent.client.verifyVm({ id: vm.id })).files.map(({ problem }) => problem)).not.toContain('x');
    expect((await agent.client.verifyVm({ id: vm.id })).files.filter(({ problem }) => problem)).toEqual([]);
    expect(await readdir(wrennDir(agent.dir).capsules)).toEqual([]);
    const awake = await resume(vm.id);
    expect(awake).toMatchObject({ state: VmState.RUNNING, generation: 1 });
    expect(await clockError(awake.hostIp, TOKEN)).toBeLessThan(1);
    const [after, count] = (await sh(awake, 'sha256sum < ~/data; cat /tmp/count')).split('\n');
    expect(after).toBe(sum);
    await until('the program goes on', 120_000, async () => Number(await sh(awake, 'cat /tmp/count')) > Number(count));
    expect(awake.trace.map(({ name }) => name)).toEqual(expect.arrayContaining(['queue', 'plan', 'restore', 'init']));
  });

  it('answer the same when they are repeated, and refuse what does not fit', async () => {
    const vm = await create();
    expect(await errorOf(agent.client.resumeVm({ id: vm.id, generation: 1, init: init() }))).toBe('invalid_state');
    const [first, second] = await Promise.all([pause(vm.id), pause(vm.id)]);
    expect(second).toEqual(first);
    expect(await errorOf(agent.client.pauseVm({ id: vm.id, generation: 2 }))).toBe('capsule_not_found');
    expect(await errorOf(agent.client.forkVm({ id: vm.id, children: [{ id: newId('cl'), init: init() }] }))).toBe(
      'capsule_not_found',
    );
    const [one, other] = await Promise.all([resume(vm.id), resume(vm.id)]);
    expect(other.hostIp).toBe(one.hostIp);
    expect(await errorOf(agent.client.resumeVm({ id: vm.id, generation: 1, init: init('other') }))).toBe(
      'invalid_state',
    );
    expect(await errorOf(agent.client.pauseVm({ id: vm.id, generation: 1 }))).toBe('invalid_request');
    expect(await errorOf(agent.client.resumeVm({ id: newId('cl'), generation: 1, init: init() }))).toBe(
      'capsule_not_found',
    );
  });

  it('survive the end of the agent at any time', async () => {
    const [asleep, awake] = await Promise.all([create(), create()]);
    await sh(asleep, 'echo kept > ~/note');
    await pause(asleep.id);
    const pausing = agent.client.pauseVm({ id: awake.id, generation: 1 }).catch(() => undefined);
    await until('it is about to sleep', async () => {
      const { vm } = await agent.client.getVm({ id: awake.id });
      return vm?.state !== VmState.RUNNING;
    });
    await agent.stop('SIGKILL');
    await pausing;
    await agent.start();
    const { vms } = await agent.client.listVms({});
    expect(vms.find(({ id }) => id === asleep.id)?.state).toBe(VmState.PAUSED);
    const found = present(vms.find(({ id }) => id === awake.id));
    const again = found.state === VmState.PAUSED ? await resume(awake.id) : found;
    expect(await sh(again, 'echo alive')).toBe('alive');
    expect(await sh(await resume(asleep.id), 'cat ~/note')).toBe('kept');
  });

  it('leave the VM running where the disk is full', async () => {
    const vm = await create();
    const filler = join(agent.dir, 'snapshots', vm.id);
    await mkdir(join(agent.dir, 'snapshots'), { recursive: true });
    await writeFile(filler, 'a file where a folder must be');
    expect(await errorOf(agent.client.pauseVm({ id: vm.id, generation: 1 }))).toBe('internal_error');
    await rm(filler);
    expect(await sh(vm, 'echo alive')).toBe('alive');
    await pause(vm.id);
  });
});

describe('a damaged snapshot', () => {
  it('is found by verify, refused by resume, and its disk boots without the memory', async () => {
    const vm = await create();
    await sh(vm, 'echo kept > ~/note; sync');
    await pause(vm.id);
    const memory = join(wrennDir(agent.dir).snapshots, vm.id, '1', 'memory', 'memory');
    const { mtime, atime } = await stat(memory);
    {
      await using file = await open(memory, 'r+');
      await file.write(Buffer.from('damage'), 0, 6, 64 * 1024 * 1024);
      await file.utimes(atime, mtime);
    }
    const { files } = await agent.client.verifyVm({ id: vm.id });
    expect(files.filter(({ problem }) => problem).map(({ name }) => name)).toEqual(['memory/memory']);
    {
      await using file = await open(memory, 'r+');
      await file.truncate(1000);
    }
    expect(await errorOf(agent.client.resumeVm({ id: vm.id, generation: 1, init: init() }))).toBe('snapshot_damaged');
    const { vms } = await agent.client.listVms({});
    expect(vms[0]).toMatchObject({ state: VmState.PAUSED, snapshotProblemCode: 'snapshot_damaged' });
    const booted = await resume(vm.id, 1, { memory: MemoryUse.DISCARD });
    expect(booted.memoryDiscarded).toBe(true);
    expect(await sh(booted, 'cat ~/note; hostname')).toBe('kept\nnamed-by-test');
    await pause(vm.id, 2);
    expect(await sh(await resume(vm.id, 2), 'cat ~/note')).toBe('kept');
  });

  it('of another hypervisor or version is told apart', async () => {
    const vm = await create();
    await pause(vm.id);
    const path = join(wrennDir(agent.dir).snapshots, vm.id, '1', 'manifest.json');
    const text = await readFile(path, 'utf8');
    await writeFile(path, text.replace('"accelerator": "tcg"', '"accelerator": "kvm"'));
    expect(await errorOf(agent.client.resumeVm({ id: vm.id, generation: 1, init: init() }))).toBe(
      'snapshot_incompatible',
    );
    await writeFile(path, text.replace('"version": 2', '"version": 99'));
    expect(await errorOf(agent.client.resumeVm({ id: vm.id, generation: 1, init: init() }))).toBe(
      'snapshot_incompatible',
    );
    await writeFile(path, text);
    expect((await resume(vm.id)).state).toBe(VmState.RUNNING);
  });
});

describe('fork', () => {
  it('makes private copies of a running VM, which goes on', async () => {
    const source = await create();
    await sh(source, COUNTER);
    const pid = await counterPid(source);
    const children = ['one', 'two', 'three'].map((name) => ({ id: newId('cl'), init: init(`token-${name}`, name) }));
    const { vms } = await agent.client.forkVm({ id: source.id, children });
    const about =
      'hostname; cat /etc/machine-id; od -An -N16 -tx8 /dev/urandom; cat /proc/sys/kernel/random/uuid; sha256sum < ~/data';
    const all = await Promise.all([
      sh(source, about),
      ...vms.map((vm, index) => sh(vm, about, children[index]?.init.accessToken)),
    ]);
    const lines = all.map((text) => text.split('\n'));
    for (const place of [0, 1, 2, 3]) expect(new Set(lines.map((line) => line[place])).size).toBe(4);
    expect(new Set(lines.map((line) => line[4])).size, 'the file is the same in all').toBe(1);
    for (const [index, vm] of vms.entries()) {
      const token = children[index]?.init.accessToken;
      expect(await counterPid(vm, token)).toBe(pid);
      await expect(runInGuest(vm.hostIp, TOKEN, 'true')).rejects.toThrow(/unauthenticated/);
    }
    expect(await counterPid(source)).toBe(pid);
    expect(await clockError(source.hostIp, TOKEN)).toBeLessThan(1);
    await sh(source, 'echo changed > ~/data');
    const [first] = vms;
    expect((await sh(present(first), 'sha256sum < ~/data', 'token-one')).split('\n')[0]).toBe(lines[0]?.[4]);
    await pause(present(first).id);
    await resume(present(first).id, 1, { init: init('token-one', 'one') });
    const again = await agent.client.forkVm({ id: source.id, children: children.slice(1) });
    expect(again.vms.map(({ id }) => id)).toEqual(children.slice(1).map(({ id }) => id));
  });
});

describe('a snapshot that VMs are made of', () => {
  it.each(['running', 'sleeping'])('is taken of a %s VM and outlives it', async (state) => {
    const source = await create();
    await sh(source, COUNTER);
    if (state === 'sleeping') await pause(source.id);
    const snapshotId = newId('snap');
    const { snapshot } = await agent.client.snapshotVm({ id: source.id, snapshotId });
    expect(snapshot).toMatchObject({ id: snapshotId, template: 'minimal', shape: SHAPE });
    await agent.client.destroyVm({ id: source.id });
    const [a, b] = await Promise.all([create({ snapshotId }), create({ snapshotId, init: init('b', 'b') })]);
    expect(await counterPid(a)).toMatch(/^\d+$/);
    expect(await sh(a, 'sha256sum < ~/data')).toBe(await sh(b, 'sha256sum < ~/data', 'b'));
    expect(await errorOf(create({ snapshotId, shape: { vcpus: 1, memoryMb: 512 } }))).toBe('invalid_shape');
    await agent.client.deleteSnapshot({ snapshotId });
    expect(await errorOf(create({ snapshotId }))).toBe('template_not_found');
    await pause(a.id);
    expect(await counterPid(await resume(a.id))).toMatch(/^\d+$/);
  });
});

describe('hibernate', () => {
  it('keeps a VM in the object store alone, and brings it back', async () => {
    const vm = await create();
    const sum = await sh(vm, COUNTER);
    await pause(vm.id);
    const objectKey = `capsules/${vm.id}/1`;
    const { storedBytes } = await agent.client.hibernateVm({ id: vm.id, generation: 1, objectKey });
    expect(Number(storedBytes)).toBeGreaterThan(1024 * 1024);
    await agent.client.forgetVm({ id: vm.id, generation: 1 });
    expect((await agent.client.listVms({})).vms).toEqual([]);
    expect(await errorOf(agent.client.resumeVm({ id: vm.id, generation: 1, init: init() }))).toBe('capsule_not_found');
    const awake = await resume(vm.id, 1, { objectKey });
    expect(await sh(awake, 'sha256sum < ~/data')).toBe(sum);
    await agent.client.deleteHibernated({ objectKey });
  });
});
