import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, readlink, realpath, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createClient, type Interceptor } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { Process } from '@wrenn/protocol/gen/process/process_pb';
import type { Vm } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { newId } from '@wrenn/protocol/ids';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runInGuest, TestAgent } from './support/host-agent.ts';
import { type LeakOptions, leaksSince, type MachineState, machineState } from './support/leaks.ts';
import { type PooledRecord, pooledRecords, poolReports, untilWaiting } from './support/warm-pool.ts';

const run = promisify(execFile);
const SHAPE = { vcpus: 1, memoryMb: 256 };
const MAX_MB = 1024;
const READY_SLOTS = 2;
const MOST_READY_SLOTS = 16;
/** Each boot of a template may take a minute on a busy machine, and is tried twice. */
const TWO_BOOTS_TIMEOUT_MS = 400_000;

let agent: TestAgent;
/** Before any VM. */
let empty: MachineState;
/** A VM that was started while the pool was empty. */
let started: Vm;
const FIRST = 'token-of-the-first';

beforeAll(async () => {
  agent = await TestAgent.create(undefined, { WRENN_WARM_POOL_MAX_MB: String(MAX_MB) });
  await agent.start();
  empty = await machineState(agent.dir);
  const [first, second] = await Promise.all([create({ token: FIRST }), create()]);
  started = first;
  await destroy(second);
});
afterAll(() => agent[Symbol.asyncDispose]());

interface Wanted {
  readonly token?: string;
  readonly hostname?: string;
  readonly envs?: Record<string, string>;
}

async function create({ token = 'token', ...init }: Wanted = {}, by = agent): Promise<Vm> {
  const id = newId('cl');
  const { vm } = await by.client.createVm({
    id,
    template: 'minimal',
    shape: SHAPE,
    init: { accessToken: token, ...init },
  });
  if (!vm) throw new Error('no VM in the answer');
  return vm;
}

const stepsOf = (vm: Vm) => vm.trace.map(({ name }) => name);
const isPooled = (vm: Vm) => stepsOf(vm).includes('pool');

/** Makes two at once, so that as many should wait for the next burst, and waits for that. */
async function untilTwoWait(): Promise<PooledRecord[]> {
  await destroy(...(await Promise.all([create(), create()])));
  return untilWaiting(agent, 2);
}

/** Once more where one that waited did not answer in time: the machine may stand still just then. */
async function createPooled(wanted: readonly Wanted[]): Promise<{ vms: Vm[]; waiting: PooledRecord[] }> {
  for (let attempt = 1; ; attempt++) {
    const waiting = await untilTwoWait();
    const vms = await Promise.all(wanted.map((one) => create(one)));
    if (attempt === 2 || vms.every(isPooled)) return { vms, waiting };
    await destroy(...vms);
  }
}

async function destroy(...vms: Vm[]): Promise<void> {
  await Promise.all(vms.map(({ id }) => agent.client.destroyVm({ id })));
}

/** Of the hypervisor of a VM that waits. */
function pidOf({ vmId, process: hypervisor }: PooledRecord): number {
  if (!hypervisor) throw new Error(`${vmId} is still being made`);
  return hypervisor.pid;
}

/** CPU time that a process has used, in ticks; proc(5). */
async function cpuTicks(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

function processesOf(vm: Vm, token: string) {
  const withToken: Interceptor = (next) => (request) => {
    request.header.set('X-Access-Token', token);
    return next(request);
  };
  const baseUrl = `http://${vm.hostIp}:49983`;
  return createClient(Process, createConnectTransport({ httpVersion: '1.1', baseUrl, interceptors: [withToken] }));
}

describe('a create', () => {
  it('takes a VM that waits, and the pool is filled again', async () => {
    expect(isPooled(started)).toBe(false);
    const [vm] = (await createPooled([{}])).vms;
    if (!vm) throw new Error('none was made');
    expect(stepsOf(vm)).toEqual(expect.arrayContaining(['queue', 'plan', 'pool', 'init']));
    for (const name of ['slot', 'disk', 'restore']) expect(stepsOf(vm)).not.toContain(name);
    expect((await agent.client.listVms({})).vms.map(({ id }) => id).sort()).toEqual([started.id, vm.id].sort());
    expect(await runInGuest(vm.hostIp, 'token', 'echo alive')).toBe('alive\n');
    await untilTwoWait();
    await destroy(vm);
  });

  it('finds VMs that have cost no CPU while they waited', async () => {
    const pids = (await untilTwoWait()).map(pidOf);
    const before = await Promise.all(pids.map(cpuTicks));
    await runInGuest(started.hostIp, FIRST, 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done');
    const after = await Promise.all(pids.map(cpuTicks));
    const used = after.map((ticks, i) => ticks - (before[i] ?? 0));
    expect(Math.max(...used)).toBeLessThanOrEqual(5);
  });

  it('gets a VM that shows nothing of another tenant, nor of its own waiting', async () => {
    const tenants = [
      { token: 'token-a', hostname: 'host-a', envs: { MINE: 'a' } },
      { token: 'token-b', hostname: 'host-b', envs: { MINE: 'b' } },
    ];
    const { vms, waiting } = await createPooled(tenants);
    expect(vms.map(isPooled)).toEqual([true, true]);
    const asked = performance.now();
    const identity = 'hostname; cat /etc/machine-id; echo $MINE; id -un; pwd; date +%s%3N';
    const random = 'od -An -N16 -tx1 /dev/urandom; cat /proc/sys/kernel/random/uuid';
    const said = await Promise.all(
      vms.map((vm, i) => runInGuest(vm.hostIp, tenants[i]?.token ?? '', `${identity}; ${random}`)),
    );
    const tookMs = performance.now() - asked;
    const lines = said.map((text) => (text ?? '').trim().split('\n'));
    for (const [i, tenant] of tenants.entries()) {
      const [hostname, machineId, mine, user, workdir, clockMs] = lines[i] ?? [];
      expect([hostname, mine, user, workdir]).toEqual([tenant.hostname, tenant.envs.MINE, 'user', '/home/user']);
      expect(machineId).toMatch(/^[0-9a-f]{32}$/);
      expect(Math.abs(Number(clockMs) - Date.now())).toBeLessThan(1000 + tookMs);
    }
    for (const line of [1, 6, 7]) expect(lines[0]?.[line], `line ${line}`).not.toBe(lines[1]?.[line]);
    // What a VM that never waited has, and nothing else.
    const everything =
      'ls -lAR --time-style=+ /tmp /var/tmp /home /root 2>/dev/null | grep -v "^total"; env | grep -v ^MINE | sort; ' +
      // Processes but for the kernel's own workers, which come and go, and those of this very command.
      'cat /proc/[0-9]*/comm | grep -vxE "kworker.*|sh|cat|grep|sort" | sort';
    const fresh = await runInGuest(started.hostIp, FIRST, everything);
    for (const [i, vm] of vms.entries()) {
      expect(await runInGuest(vm.hostIp, tenants[i]?.token ?? '', everything)).toBe(fresh);
      const client = processesOf(vm, tenants[i]?.token ?? '');
      expect((await client.list({})).processes).toEqual([]);
      expect(await connectable(client, vm, tenants[i]?.token ?? '')).toEqual([]);
    }
    // Neither the tokens of the pool nor that of the other open anything.
    for (const { accessToken } of waiting) {
      expect(accessToken).toMatch(/^[0-9a-f]{64}$/);
      for (const vm of vms) await expect(runInGuest(vm.hostIp, accessToken, 'true')).rejects.toThrow(/unauthenticated/);
    }
    await expect(runInGuest(vms[0]?.hostIp ?? '', 'token-b', 'true')).rejects.toThrow(/unauthenticated/);
    await destroy(...vms);
  });

  it('is not held up by a VM of the pool that has died', async () => {
    const [first] = await untilWaiting(agent, 1);
    if (!first) throw new Error('none waits');
    process.kill(pidOf(first), 'SIGKILL');
    const vms = await Promise.all([create(), create(), create()]);
    for (const vm of vms) expect(await runInGuest(vm.hostIp, 'token', 'echo alive')).toBe('alive\n');
    expect(new Set(vms.map(({ hostIp }) => hostIp)).size).toBe(3);
    await destroy(...vms);
    const { capsules } = wrennDir(agent.dir);
    await until('nothing is left of it', async () => !(await pathExists(join(capsules, first.vmId))));
  });

  it('takes another way when a VM of the pool does not answer', async () => {
    const waiting = await untilWaiting(agent, 1);
    const tried = Math.min(waiting.length, 2);
    const before = await failedHandOvers();
    const pids = waiting.map(pidOf);
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    const vm = await create();
    expect(await runInGuest(vm.hostIp, 'token', 'echo alive')).toBe('alive\n');
    await destroy(vm);
    for (const pid of pids) continueIfThere(pid);
    const { capsules } = wrennDir(agent.dir);
    await until('those that were tried are gone', 30_000, async () => {
      const left = await Promise.all(waiting.map(({ vmId }) => pathExists(join(capsules, vmId))));
      return left.filter((there) => !there).length >= tried;
    });
    expect(await failedHandOvers()).toBe(before + tried);
  });
});

async function failedHandOvers(): Promise<number> {
  return (await agent.log()).split('could not be handed over').length - 1;
}

function continueIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGCONT');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Processes before the newest that the guest agent would still tell its tenant of. */
async function connectable(client: ReturnType<typeof processesOf>, vm: Vm, token: string): Promise<number[]> {
  const newest = Number(await runInGuest(vm.hostIp, token, 'echo $$'));
  const found: number[] = [];
  for (let pid = Math.max(1, newest - 40); pid < newest; pid++) {
    const selector = { process: { selector: { case: 'pid', value: pid } }, fromOffset: 0n } as const;
    try {
      for await (const _event of client.connect(selector, { timeoutMs: 120_000 })) found.push(pid);
    } catch (error) {
      expect(String(error)).toContain('not_found');
    }
  }
  // The tenant's own earlier commands are the tenant's to see.
  return found.filter((pid) => pid < newest - 20);
}

async function pathExists(path: string): Promise<boolean> {
  return readFile(join(path, 'record.json')).then(
    () => true,
    () => false,
  );
}

/** What is there now and was not before the first VM, but for the template's snapshot. */
async function leaks(options: LeakOptions = {}): Promise<string[]> {
  const kept = `file ${wrennDir(agent.dir).templateSnapshots}/`;
  const snapshot = [...(await machineState(agent.dir))].filter((thing) => thing.startsWith(kept));
  return leaksSince(new Set([...empty, ...snapshot]), agent.dir, options);
}

describe('an agent with a full pool', () => {
  it('leaves nothing of it when it is killed and starts again', async () => {
    await destroy(started);
    await untilWaiting(agent, 1);
    await agent.stop('SIGKILL');
    await agent.start();
    expect((await agent.client.listVms({})).vms).toEqual([]);
    expect(await pooledRecords(agent.dir)).toEqual([]);
    expect(await leaks({ readySlots: READY_SLOTS })).toEqual([]);
  });

  it('leaves nothing of it when it is stopped, and keeps within its memory before', {
    timeout: TWO_BOOTS_TIMEOUT_MS,
  }, async () => {
    const vms = await Promise.all(Array.from({ length: 6 }, () => create()));
    await destroy(...vms);
    await untilWaiting(agent, MAX_MB / SHAPE.memoryMb);
    // What it holds is the pool's, VM for VM.
    expect(await leaks({ warmPool: true, readySlots: MOST_READY_SLOTS })).toEqual([]);
    const reports = await poolReports(agent);
    expect(Math.max(...reports.map(({ wanted }) => wanted))).toBeGreaterThan(MAX_MB / SHAPE.memoryMb);
    expect(Math.max(...reports.map(({ memoryMb }) => memoryMb))).toBe(MAX_MB);
    await agent.stop('SIGTERM');
    expect(await leaks()).toEqual([]);
    await agent.start();
  });

  it('hands out none of an earlier template', { timeout: TWO_BOOTS_TIMEOUT_MS }, async () => {
    const other = await TestAgent.create(undefined, { WRENN_WARM_POOL_MAX_MB: '256' });
    await ownImages(other.dir);
    await other.start();
    try {
      const vm = await create({}, other);
      const [old] = await untilWaiting(other, 1);
      await changeImage(other.dir);
      const next = await create({}, other);
      expect(stepsOf(next)).not.toContain('pool');
      expect(await runInGuest(next.hostIp, 'token', 'echo alive')).toBe('alive\n');
      await until('the outdated one is gone', 60_000, async () => {
        return !(await pooledRecords(other.dir)).some(({ vmId }) => vmId === old?.vmId);
      });
      const [fresh] = await untilWaiting(other, 1);
      expect(fresh?.imageSha256).not.toBe(old?.imageSha256);
      for (const { id } of [vm, next]) await other.client.destroyVm({ id });
    } finally {
      await other[Symbol.asyncDispose]();
    }
  });
});

/** Gives a WRENN_DIR images of its own, that a test may change. */
async function ownImages(root: string): Promise<void> {
  const { images, imageStore } = wrennDir(root);
  const shared = await realpath(images);
  await unlink(images);
  await mkdir(imageStore, { recursive: true });
  await copyImage(await realpath(join(shared, 'minimal')), root);
}

async function changeImage(root: string): Promise<void> {
  await copyImage(await realpath(wrennDir(root).image('minimal')), root);
}

/** Makes `minimal` an image of the same content and another identity. */
async function copyImage(folder: string, root: string): Promise<void> {
  const { imageStore, image } = wrennDir(root);
  const sha256 = randomBytes(32).toString('hex');
  const copy = join(imageStore, sha256);
  await run('cp', ['-a', '--sparse=always', '--reflink=auto', folder, copy]);
  const path = join(copy, 'manifest.json');
  await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, 'utf8')), sha256 }));
  const link = image('minimal');
  const earlier = await readlink(link).catch(() => undefined);
  await rm(link, { force: true });
  await symlink(join('store', sha256), link);
  if (earlier) await rm(join(imageStore, earlier.split('/').at(-1) ?? '-'), { recursive: true });
}

it('an agent that may keep no VMs keeps none', async () => {
  const none = await TestAgent.create(undefined, { WRENN_WARM_POOL_MAX_MB: '0' });
  await none.start();
  try {
    const vms = [await create({}, none), await create({}, none)];
    expect(vms.map(isPooled)).toEqual([false, false]);
    for (const { id } of vms) await none.client.destroyVm({ id });
    expect(await poolReports(none)).toEqual([]);
    expect(await pooledRecords(none.dir)).toEqual([]);
  } finally {
    await none[Symbol.asyncDispose]();
  }
});
