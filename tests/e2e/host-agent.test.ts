import { execFile } from 'node:child_process';
import { mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ConnectError } from '@connectrpc/connect';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { fromConnectError } from '@wrenn/protocol/connect-errors';
import type { ErrorCode } from '@wrenn/protocol/errors';
import { type Vm, VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { newId } from '@wrenn/protocol/ids';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clockError, runInGuest, TestAgent, vmFolderOf } from './support/host-agent.ts';
import { leaksSince, type MachineState, machineState } from './support/leaks.ts';

const run = promisify(execFile);
const SHAPE = { vcpus: 1, memoryMb: 256 };
const TOKEN = 'token-of-this-test';
/** What an agent keeps ready. */
const READY_SLOTS = 2;
const NO_POOL = { WRENN_WARM_POOL_MAX_MB: '0' };
/** Lets the guest answer first: of a machine that is off nobody hears that a connection ended. */
const POWER_OFF = '(sleep 1; sudo sh -c "sync; echo o > /proc/sysrq-trigger") </dev/null >/dev/null 2>&1 &';

let agent: TestAgent;
/** With the agent running, its template snapshot made and no VM. */
let idle: MachineState;
/** The first VM of its shape. */
let coldStart: Vm;

beforeAll(async () => {
  // Without a warm pool, so that what the agent holds is its VMs' and nothing else's.
  agent = await TestAgent.create(undefined, NO_POOL);
  await agent.start();
  coldStart = await create();
  await agent.client.destroyVm({ id: coldStart.id });
  idle = await machineState(agent.dir);
});
afterAll(() => agent[Symbol.asyncDispose]());

function request(id: string = newId('cl'), over: object = {}) {
  const init = { accessToken: TOKEN, envs: { COLOUR: 'green' }, hostname: 'named-by-test' };
  return { id, template: 'minimal', shape: SHAPE, init, ...over };
}

async function create(id?: string): Promise<Vm> {
  const { vm } = await agent.client.createVm(request(id));
  if (!vm) throw new Error('no VM in the answer');
  return vm;
}

async function codeOf(promise: Promise<unknown>): Promise<ErrorCode | 'none'> {
  return promise.then(
    () => 'none',
    (error: unknown) => fromConnectError(ConnectError.from(error)).code,
  );
}

/** On a connection of its own: one that was kept may lead to an earlier VM with the same address. */
function answers(vm: Vm, timeoutMs = 60_000): Promise<boolean> {
  return new Promise((resolve) => {
    const asked = get(`http://${vm.hostIp}:49983/health`, { agent: false, timeout: timeoutMs }, (response) => {
      response.resume();
      resolve(response.statusCode === 204);
    });
    asked.on('timeout', () => asked.destroy());
    asked.on('error', () => resolve(false));
  });
}

function step(vm: Vm, name: string): number {
  return vm.trace.find((entry) => entry.name === name)?.durationMs ?? 0;
}

function leaks(): Promise<string[]> {
  return leaksSince(idle, agent.dir, { readySlots: READY_SLOTS });
}

describe('a VM', () => {
  it('starts cold once for its shape, then from memory', async () => {
    const second = await create();
    expect([coldStart.state, second.state]).toEqual([VmState.RUNNING, VmState.RUNNING]);
    expect(step(coldStart, 'template')).toBeGreaterThan(1000);
    // One of them may fall into a moment in which the machine stands still.
    const others = [await create(), await create()];
    const quickest = Math.min(...[second, ...others].map((vm) => step(vm, 'template')));
    expect(quickest).toBeLessThan(step(coldStart, 'template') / 10);
    for (const { id } of others) await agent.client.destroyVm({ id });
    expect(second.trace.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['queue', 'slot', 'disk', 'restore', 'init']),
    );
    expect(await answers(second)).toBe(true);
    const { templates } = await agent.client.hello({ protocolMin: 1, protocolMax: 1 });
    expect(templates.find(({ name }) => name === 'minimal')?.warmShapes).toMatchObject([SHAPE]);
    await agent.client.destroyVm({ id: second.id });
    expect((await agent.client.listVms({})).vms).toEqual([]);
    expect(await leaks()).toEqual([]);
  });

  it('has the settings that it was given, its own clock and randomness', async () => {
    const [a, b] = await Promise.all([create(), create()]);
    const script = 'hostname; echo $COLOUR; id -un; od -An -N8 -tx8 /dev/urandom; cat /proc/sys/kernel/random/uuid';
    const [outA, outB] = await Promise.all([a, b].map((vm) => runInGuest(vm.hostIp, TOKEN, script)));
    const [host, colour, user, ...random] = (outA ?? '').trim().split('\n');
    expect([host, colour, user]).toEqual(['named-by-test', 'green', 'user']);
    expect(await clockError(a.hostIp, TOKEN)).toBeLessThan(10);
    expect(random).not.toEqual((outB ?? '').trim().split('\n').slice(3));
    await expect(runInGuest(a.hostIp, 'another token', 'true')).rejects.toThrow(/unauthenticated/);
    for (const { id } of [a, b]) await agent.client.destroyVm({ id });
    expect(await leaks()).toEqual([]);
  });

  it('is made once however often it is asked for, and is not another of the same id', async () => {
    const id = newId('cl');
    const all = await Promise.all([1, 2, 3].map(() => agent.client.createVm(request(id))));
    expect(new Set(all.map(({ vm }) => vm?.hostIp)).size).toBe(1);
    expect((await agent.client.listVms({})).vms).toHaveLength(1);
    expect((await agent.client.getVm({ id })).vm).toEqual(all[0]?.vm);
    expect(await codeOf(agent.client.createVm(request(id, { shape: { ...SHAPE, memoryMb: 512 } })))).toBe('conflict');
    await Promise.all([1, 2].map(() => agent.client.destroyVm({ id })));
    expect(await codeOf(agent.client.getVm({ id }))).toBe('capsule_not_found');
    expect(await leaks()).toEqual([]);
  });

  it.each<[string, object, ErrorCode]>([
    ['no vCPU', { shape: { vcpus: 0, memoryMb: 256 } }, 'invalid_shape'],
    ['too many vCPUs', { shape: { vcpus: 10_000, memoryMb: 256 } }, 'invalid_shape'],
    ['too little memory', { shape: { vcpus: 1, memoryMb: 127 } }, 'invalid_shape'],
    ['more memory than the machine', { shape: { vcpus: 1, memoryMb: 100_000_000 } }, 'invalid_shape'],
    ['an unknown template', { template: 'nothing-of-that-name' }, 'template_not_found'],
    ['a template outside', { template: '../kernels' }, 'invalid_request'],
    ['a disk of another unit', { diskMb: 4_000_000_000 }, 'invalid_request'],
    ['an id that is a path', { id: '../../etc' }, 'invalid_request'],
  ])('with %s is refused', async (_, over, code) => {
    expect(await codeOf(agent.client.createVm(request(newId('cl'), over)))).toBe(code);
    expect(await leaks()).toEqual([]);
  });

  it('that its caller no longer waits for is undone', async () => {
    const id = newId('cl');
    expect(await codeOf(agent.client.createVm(request(id), { timeoutMs: 60 }))).toBe('deadline_exceeded');
    await until('it is gone', 30_000, async () => (await agent.client.listVms({})).vms.length === 0);
    expect(await leaks()).toEqual([]);
    const vm = await create(id);
    expect(await answers(vm)).toBe(true);
    await agent.client.destroyVm({ id });
  });

  it('tells watchers of each step of its life', async () => {
    const stop = new AbortController();
    const id = newId('cl');
    const seen: string[] = [];
    const watching = (async () => {
      for await (const { event } of agent.client.watchVms({}, { signal: stop.signal })) {
        if (event.case === 'synced') seen.push('synced');
        if (event.case === 'vm' && event.value.id === id) seen.push(VmState[event.value.state]);
        if (event.case === 'destroyed' && event.value === id) return;
      }
    })();
    await until('the watch has begun', () => seen.length > 0);
    await create(id);
    await until('the watcher knows', () => seen.includes('RUNNING'));
    await agent.client.destroyVm({ id });
    await watching;
    stop.abort();
    expect(seen).toEqual(['synced', 'STARTING', 'RUNNING', 'STOPPING']);
  });

  it('has a file system as large as the disk that it asked for', async () => {
    const { vm } = await agent.client.createVm(request(newId('cl'), { diskMb: 7000 }));
    expect(vm?.diskMb).toBe(7000);
    const size = await runInGuest(vm?.hostIp ?? '', TOKEN, 'df --output=size -BM / | tail -1');
    expect(Number.parseInt(size ?? '', 10)).toBeGreaterThan(6500);
    await agent.client.destroyVm({ id: vm?.id ?? '' });
    idle = await machineState(agent.dir);
  });

  it('that powers itself off is kept as failed, with its reason and its console, and nothing else', async () => {
    const vm = await create();
    await runInGuest(vm.hostIp, TOKEN, `echo last words | sudo tee /dev/console; ${POWER_OFF}`).catch(() => undefined);
    await until('it has failed', 60_000, async () => {
      return (await agent.client.getVm({ id: vm.id })).vm?.state === VmState.FAILED;
    });
    const failed = (await agent.client.getVm({ id: vm.id })).vm;
    expect(failed).toMatchObject({ reasonCode: 'capsule_ended', hostIp: '' });
    expect(failed?.reason).toContain(vm.id);
    await until('its slot is free', async () => !(await answers(vm, 5000)));
    const { data } = await agent.client.getVmConsole({ id: vm.id });
    expect(new TextDecoder().decode(data)).toContain('last words');
    const folder = (await vmFolderOf(agent.dir, vm.id)) ?? 'nowhere';
    await until('its files are gone', async () => (await readdir(folder)).length === 2);
    expect((await readdir(folder)).sort()).toEqual(['console.tail', 'record.json']);
    await agent.client.destroyVm({ id: vm.id });
    expect(await leaks()).toEqual([]);
  });

  it('starts anew from a template snapshot that was damaged', async () => {
    const { templateSnapshots } = wrennDir(agent.dir);
    // Tests before this one may have left snapshots of other shapes.
    for (const key of await readdir(templateSnapshots)) {
      const memory = join(templateSnapshots, key, 'memory', 'memory');
      await writeFile(memory, Buffer.alloc(64 * 1024 * 1024), { flag: 'r+' });
    }
    const vm = await create();
    expect(await answers(vm)).toBe(true);
    expect(vm.trace.filter(({ name }) => name === 'template').length).toBe(2);
    await agent.client.destroyVm({ id: vm.id });
    idle = await machineState(agent.dir);
  });
});

describe('an agent that is killed', () => {
  it('adopts its VMs when it starts again, and still frees all that they hold', async () => {
    const vms = await Promise.all([create(), create(), create()]);
    await agent.stop('SIGKILL');
    for (const vm of vms) expect(await answers(vm), 'without an agent').toBe(true);
    await agent.start();
    const listed = (await agent.client.listVms({})).vms;
    expect(listed.map(({ id }) => id).sort()).toEqual(vms.map(({ id }) => id).sort());
    for (const vm of listed) {
      expect(vm.state).toBe(VmState.RUNNING);
      expect(await answers(vm)).toBe(true);
      expect(await runInGuest(vm.hostIp, TOKEN, 'echo alive')).toBe('alive\n');
    }
    // An adopted VM is watched like any other.
    const [one, ...others] = listed;
    if (!one) throw new Error('no VM');
    await runInGuest(one.hostIp, TOKEN, POWER_OFF).catch(() => undefined);
    await until('it has failed', 60_000, async () => {
      return (await agent.client.getVm({ id: one.id })).vm?.state === VmState.FAILED;
    });
    for (const { id } of [one, ...others]) await agent.client.destroyVm({ id });
    expect(await leaks()).toEqual([]);
  });

  it('fails VMs that ended while no agent ran', async () => {
    const vm = await create();
    const folder = (await vmFolderOf(agent.dir, vm.id)) ?? 'nowhere';
    const record = JSON.parse(await readFile(join(folder, 'record.json'), 'utf8'));
    await agent.stop('SIGKILL');
    process.kill(record.process.pid, 'SIGKILL');
    await agent.start();
    expect((await agent.client.getVm({ id: vm.id })).vm).toMatchObject({
      state: VmState.FAILED,
      reasonCode: 'capsule_ended',
    });
    await agent.client.destroyVm({ id: vm.id });
    expect(await leaks()).toEqual([]);
  });

  it.each<[string, (record: Record<string, unknown>) => boolean]>([
    ['before anything is made', () => true],
    ['when it has its slot', (record) => record.slot !== undefined],
    ['when its process runs', (record) => record.process !== undefined],
  ])('in the middle of a create, %s, leaves nothing, and the id can be used again', async (_, reached) => {
    const id = newId('cl');
    const creating = create(id).catch(() => undefined);
    await until('the step is reached', 30_000, async () => {
      const folder = await vmFolderOf(agent.dir, id);
      const text = folder && (await readFile(join(folder, 'record.json'), 'utf8').catch(() => undefined));
      return text !== undefined && reached(JSON.parse(text));
    });
    await agent.stop('SIGKILL');
    await creating;
    await agent.start();
    const { vms } = await agent.client.listVms({});
    // The kill may come after the last step, when the VM is complete and is kept.
    if (vms.length > 0) await agent.client.destroyVm({ id });
    expect(await leaks()).toEqual([]);
    expect(await answers(await create(id))).toBe(true);
    await agent.client.destroyVm({ id });
  });

  it('in the middle of a destroy finishes it', async () => {
    const vm = await create();
    const path = join((await vmFolderOf(agent.dir, vm.id)) ?? 'nowhere', 'record.json');
    const destroying = agent.client.destroyVm({ id: vm.id }).catch(() => undefined);
    await until('it has begun', 30_000, async () => {
      const text = await readFile(path, 'utf8').catch(() => '"destroying"');
      return text.includes('"destroying"');
    });
    await agent.stop('SIGKILL');
    await destroying;
    await agent.start();
    expect((await agent.client.listVms({})).vms).toEqual([]);
    expect(await leaks()).toEqual([]);
  });

  it('while a template snapshot is made leaves no half of it', async () => {
    const { templateSnapshots } = wrennDir(agent.dir);
    const big = request(newId('cl'), { shape: { vcpus: 1, memoryMb: 320 } });
    const creating = agent.client.createVm(big).catch(() => undefined);
    await until('it boots', 30_000, async () => {
      const names = await readdir(templateSnapshots, { recursive: true });
      return names.some((name) => name.endsWith('.partial/run/console.log'));
    });
    await agent.stop('SIGKILL');
    await creating;
    await agent.start();
    expect((await agent.client.listVms({})).vms).toEqual([]);
    expect(await leaks()).toEqual([]);
  });
});

describe('an agent that is stopped', () => {
  it('leaves its VMs alone, gives back its pool, and finds them again', async () => {
    const vm = await create();
    await agent.stop('SIGTERM');
    expect(await answers(vm)).toBe(true);
    const left = [...(await machineState(agent.dir))].filter((thing) => thing.startsWith('slot claim'));
    expect(left).toHaveLength(1);
    await agent.start();
    expect((await agent.client.getVm({ id: vm.id })).vm?.state).toBe(VmState.RUNNING);
    await agent.client.destroyVm({ id: vm.id });
  });

  it('lets no second agent use its WRENN_DIR', async () => {
    const env = { ...process.env, WRENN_DIR: agent.dir, WRENN_HOST_LISTEN_ADDR: '127.0.0.1:0' };
    const second = run(process.execPath, ['apps/host-agent/src/main.ts'], { env, timeout: 30_000 });
    await expect(second).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining('Another agent already') });
    expect((await agent.client.listVms({})).vms).toEqual([]);
  });
});

describe('a full disk', () => {
  it('refuses a VM with host_disk_full and leaves nothing', async () => {
    const dir = `${agent.dir}-small`;
    await mkdir(dir, { mode: 0o711 });
    await run('mount', ['-t', 'tmpfs', '-o', 'size=200m,mode=711', 'tmpfs', dir]);
    try {
      const shared = wrennDir(agent.dir);
      await symlink(shared.kernels, join(dir, 'kernels'));
      await symlink(shared.images, join(dir, 'images'));
      await mkdir(join(dir, 'logs'));
      const small = await TestAgent.create(dir, NO_POOL);
      await small.start();
      try {
        const before = await machineState(dir);
        // Room for an overlay, not for the memory of a template.
        expect(await codeOf(small.client.createVm(request()))).toBe('host_disk_full');
        await run('fallocate', ['-l', '190M', join(dir, 'filler')]);
        expect(await codeOf(small.client.createVm(request()))).toBe('host_disk_full');
        expect((await small.client.listVms({})).vms).toEqual([]);
        expect(await leaksSince(before, dir, { readySlots: READY_SLOTS })).toEqual([]);
      } finally {
        await small.stop('SIGTERM');
      }
    } finally {
      await run('umount', [dir]);
      await rm(dir, { recursive: true });
    }
  });
});
