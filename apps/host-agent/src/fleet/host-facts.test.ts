import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { heartbeatRequestSchema, registerHostRequestSchema } from '@wrenn/protocol/rest/hosts';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { VmRecord } from '../journal/vm-record.ts';
import type { SleepingVm } from '../snapshots/snapshot-store.ts';
import type { FactsOf } from './host-facts.ts';
import { heartbeatFacts, registrationFacts } from './host-facts.ts';

let facts: FactsOf;
beforeAll(async () => {
  const root = await mkdtemp(join(tmpdir(), 'wrenn-facts-'));
  const identity = { kind: 'qemu', version: '10.0.2', accelerator: 'kvm', arch: 'aarch64', cpu: 'host' } as const;
  facts = { dir: wrennDir(root), identity, agentVersion: '1.2.3' };
});
afterAll(() => rm(facts.dir.root, { recursive: true }));

it('measures what a registration says', async () => {
  const measured = await registrationFacts(facts);
  expect(registerHostRequestSchema.parse({ ...measured, token: 'x', csr: 'x' })).toMatchObject({
    ...{ arch: 'arm64', hypervisor: 'qemu', hypervisor_version: '10.0.2', accelerator: 'kvm', agent_version: '1.2.3' },
  });
  expect(measured.cpu_cores).toBeGreaterThan(0);
  expect(measured.memory_mb).toBeGreaterThan(100);
  expect(measured.disk_free_mb).toBeLessThanOrEqual((measured.disk_gb + 1) * 1024);
});

it('tells of every VM what it is at, with its generation', async () => {
  const record = (phase: VmRecord['phase']) =>
    ({ phase, template: 'minimal', trace: [], createdAt: new Date().toISOString() }) as unknown as VmRecord;
  const sleeping = { generation: 7, ownBytes: 1 } as unknown as SleepingVm;
  const told = await heartbeatFacts(facts, [
    { id: 'cl-a', record: record('creating'), sleeping: undefined },
    { id: 'cl-b', record: record('running'), sleeping },
    { id: 'cl-c', record: record('pausing'), sleeping },
    { id: 'cl-d', record: undefined, sleeping },
    { id: 'cl-e', record: record('failed'), sleeping: undefined },
    { id: 'cl-f', record: record('destroying'), sleeping: undefined },
  ]);
  expect(told.vms).toEqual([
    { id: 'cl-a', state: 'starting', generation: 0 },
    { id: 'cl-b', state: 'running', generation: 7 },
    { id: 'cl-c', state: 'pausing', generation: 7 },
    { id: 'cl-d', state: 'paused', generation: 7 },
    { id: 'cl-e', state: 'failed', generation: 0 },
    { id: 'cl-f', state: 'stopping', generation: 0 },
  ]);
  expect(heartbeatRequestSchema.safeParse({ ...told, sent_at: new Date().toISOString() }).success).toBe(true);
});
