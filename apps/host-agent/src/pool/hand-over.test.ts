import { once } from 'node:events';
import { createServer } from 'node:http';
import type { RunningVm } from '@wrenn/hypervisor/hypervisor';
import { expect, it } from 'vitest';
import { ENVD_PORT } from '../guest/guest-connection.ts';
import type { VmRecord } from '../journal/vm-record.ts';
import type { StartContext } from '../vms/start-vm.ts';
import { Trace } from '../vms/trace.ts';
import { handOver } from './hand-over.ts';
import type { PooledVm } from './pooled-vm.ts';

/** A loopback address of this file's own. */
const ADDRESS = '127.77.3.10';
/** Longer than a guest of the pool is waited for. */
const STANDSTILL_MS = 5500;

const record = { id: 'cl-1', defaults: { user: 'user', workdir: '/home/user', envs: {} } } as unknown as VmRecord;
const init = { accessToken: 'of the tenant', envs: {}, user: '', workdir: '', hostname: '' };
const never = new AbortController().signal;

it('hands a VM over although everything stands still while its guest answers', async () => {
  let requests = 0;
  const server = createServer((_, response) => {
    requests += 1;
    if (requests === 1) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, STANDSTILL_MS);
    response.writeHead(204).end();
  }).listen(ENVD_PORT, ADDRESS);
  await once(server, 'listening');
  try {
    const process = { exited: new Promise(() => undefined), resume: async () => undefined } as unknown as RunningVm;
    const waiting = { vmId: 'vm-1', process: { pid: 1 } };
    const vm = { token: 'of the pool', entry: { record: waiting, process, slot: { index: 7, hostIp: ADDRESS } } };
    const written: string[] = [];
    const journal = { write: async ({ phase }: VmRecord) => void written.push(phase) };
    const context = { journal } as unknown as StartContext;
    const entry = await handOver(context, vm as unknown as PooledVm, { record, init }, new Trace(), never);
    expect(entry.record).toMatchObject({ id: 'cl-1', vmId: 'vm-1', slot: 7, phase: 'running' });
    expect(written.at(-1)).toBe('running');
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
