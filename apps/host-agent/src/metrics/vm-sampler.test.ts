import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { processKey } from '@wrenn/hypervisor/vm-process';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { slotOf } from '../network/slot.ts';
import { readStats } from '../server/read-stats.ts';
import type { InterfaceUse } from './read-network.ts';
import { readInterfaces } from './read-network.ts';
import { type MeasuredVm, VmSampler } from './vm-sampler.ts';

const MIB = 1024 * 1024;
const STARTED = '2026-03-05T11:00:00.000Z';
let dir: string;
let processes: ChildProcess[];
let running: { record: MeasuredVm; dir: string }[];
let network: Map<string, InterfaceUse>;
let now: Date;
let sampler: VmSampler;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-sampler-'));
  processes = [];
  running = [];
  network = new Map();
  now = new Date('2026-03-05T12:00:00Z');
  sampler = new VmSampler({
    ...{ running: () => running, log: pino({ level: 'silent' }) },
    ...{ now: () => now, interfaces: () => network },
  });
});
afterEach(async () => {
  for (const child of processes) child.kill('SIGKILL');
  await rm(dir, { recursive: true });
});

/** A program that holds 64 MiB and then computes, or does not. */
async function startProgram(work: 'compute' | 'wait') {
  const compute = 'const end = Date.now() + 60000; while (Date.now() < end);';
  const wait = 'setTimeout(() => undefined, 60000);';
  const script = `globalThis.held = Buffer.alloc(${64 * MIB}, 1); console.log('ready'); ${work === 'wait' ? wait : compute}`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] });
  processes.push(child);
  await once(child.stdout, 'data');
  const key = processKey(child.pid ?? 0);
  if (!key) throw new Error('the program has ended');
  return { child, process: { ...key, controlSocket: '', identity: {} as never } };
}

async function addVm(id: string, work: 'compute' | 'wait', vcpus = 1) {
  const { child, process } = await startProgram(work);
  const slot = running.length + 1;
  const shape = { vcpus, memoryMb: 512 };
  const record = { id, shape, layers: [], sharedLayers: 0, startedAt: STARTED, process, slot };
  running.push({ record, dir });
  network.set(slotOf(slot).veth, { receivedBytes: 100, sentBytes: 200 });
  return { record, child };
}

const tick = (seconds: number) => {
  now = new Date(now.getTime() + seconds * 1000);
};

it('measures what processes use of the CPU, of memory, of the disk and of the network', async () => {
  await addVm('cl-busy', 'compute', 2);
  await addVm('cl-calm', 'wait');
  await writeFile(join(dir, 'disk.qcow2'), Buffer.alloc(MIB, 1));
  await sampler.look();
  expect(sampler.takeSamples().samples).toEqual([]);
  const measure = async () => {
    await delay(1500);
    tick(5);
    await sampler.look();
    const { samples, acknowledge } = sampler.takeSamples();
    acknowledge();
    return samples;
  };
  let [busy, calm] = await measure();
  // A machine that stands still meanwhile leaves nothing to compute with.
  for (let round = 1; round < 5 && busy && busy.cpuPct <= 10; round++) [busy, calm] = await measure();
  expect(busy).toMatchObject({ id: 'cl-busy', at: now, countedFrom: new Date(STARTED) });
  // One thread, of two vCPUs, on a machine that may have others to serve.
  expect(busy?.cpuPct).toBeGreaterThan(10);
  expect(busy?.cpuPct).toBeLessThanOrEqual(55);
  expect(calm?.cpuPct).toBeLessThan(10);
  for (const sample of [busy, calm]) {
    expect(sample?.memoryBytes).toBeGreaterThan(64 * MIB);
    expect(sample?.memoryBytes).toBeLessThan(512 * MIB);
    expect(sample?.diskBytes).toBeGreaterThanOrEqual(MIB);
    expect(sample).toMatchObject({ netRxBytes: 200, netTxBytes: 100 });
  }
});

it('keeps what a VM sent last, also one whose process has ended', async () => {
  const { record, child } = await addVm('cl-1', 'wait');
  await sampler.look();
  child.kill('SIGKILL');
  await once(child, 'exit');
  network.set(slotOf(1).veth, { receivedBytes: 5000, sentBytes: 6000 });
  tick(1);
  sampler.lastLook(record);
  running = [];
  await sampler.look();
  const { samples } = sampler.takeSamples();
  expect(samples).toHaveLength(1);
  expect(samples[0]).toMatchObject({ id: 'cl-1', at: now, netTxBytes: 5000, netRxBytes: 6000 });
  expect(samples[0]?.memoryBytes).toBeGreaterThan(64 * MIB);
});

it('takes no other process for the one of a VM, and nothing from an earlier start', async () => {
  const { record } = await addVm('cl-1', 'wait');
  await sampler.look();
  const later = { ...record, startedAt: '2026-03-05T11:30:00.000Z' };
  running = [{ record: later, dir }];
  await sampler.look();
  expect(sampler.takeSamples().samples).toEqual([]);
  running = [{ record: { ...later, process: { ...record.process, startTicks: '1' } }, dir }];
  await sampler.look();
  expect(sampler.takeSamples().samples).toEqual([]);
});

it('tells a measurement until it has arrived, and for a quarter of an hour', async () => {
  await addVm('cl-1', 'wait');
  await addVm('cl-2', 'wait');
  await sampler.look();
  const look = async () => {
    tick(5);
    await sampler.look();
  };
  await look();
  const first = sampler.takeSamples();
  await look();
  expect(first.samples).toHaveLength(2);
  expect(sampler.takeSamples().samples).toHaveLength(4);
  first.acknowledge();
  const second = sampler.takeSamples();
  expect(second.samples.map(({ at }) => at)).toEqual([now, now]);
  second.acknowledge();
  first.acknowledge();
  expect(sampler.takeSamples().samples).toEqual([]);

  const before = new Date(now.getTime() - 5000);
  expect(sampler.readSamples(undefined, undefined)).toHaveLength(4);
  expect(sampler.readSamples('cl-2', before).map(({ id, at }) => [id, at])).toEqual([['cl-2', now]]);
  tick(14 * 60);
  await sampler.look();
  expect(sampler.readSamples('cl-1', undefined)).toHaveLength(3);
  tick(120);
  await sampler.look();
  expect(sampler.readSamples('cl-1', undefined)).toHaveLength(2);
  expect(sampler.takeSamples().samples).toHaveLength(4);
});

it('answers ReadStats without leaving anything out between two pages', () => {
  const at = (index: number) => new Date(now.getTime() + Math.floor(index / 7) * 5000);
  const all = Array.from({ length: 30_000 }, (_, index) => ({
    ...{ id: `cl-${index % 7}`, at: at(index), countedFrom: new Date(STARTED), cpuPct: 1, memoryBytes: 2 },
    ...{ diskBytes: 3, netRxBytes: 4, netTxBytes: index },
  }));
  const source = {
    readSamples: (_id: string | undefined, since?: Date) => all.filter((sample) => !since || sample.at > since),
  };
  const first = readStats(source, { id: '', since: undefined } as never).samples;
  const rest = readStats(source, { id: '', since: first.at(-1)?.at } as never).samples;
  expect(first.length).toBeLessThanOrEqual(20_000);
  expect([...first, ...rest].map(({ netTxBytes }) => Number(netTxBytes))).toEqual(all.map((each) => each.netTxBytes));
});

it('reads the counters of the interfaces of this machine', async () => {
  const path = join(dir, 'dev');
  const line = (name: string) => `${name}: 5303342961  103 0 0 0 0 0 0 77 88 0 0 0 0 0 0\n`;
  await writeFile(path, `Inter-|\n face |bytes\n${line('    lo')}${line('wrenn-veth-1234')}`);
  const use = { receivedBytes: 5_303_342_961, sentBytes: 77 };
  expect([...readInterfaces(path)]).toEqual([
    ['lo', use],
    ['wrenn-veth-1234', use],
  ]);
  expect(readInterfaces().get('lo')).toBeDefined();
});
