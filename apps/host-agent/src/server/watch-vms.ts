import { create, type MessageInitShape } from '@bufbuild/protobuf';
import {
  WatchVmsResponse_KeepAliveSchema,
  WatchVmsResponse_SyncedSchema,
  type WatchVmsResponseSchema,
} from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { VmManager } from '../vms/vm-manager.ts';
import { vmMessage } from './vm-message.ts';

/** A connection on which nothing comes for longer than this is dead. */
const KEEPALIVE_MS = 15_000;

type Answer = MessageInitShape<typeof WatchVmsResponseSchema>;

/** Every VM there is, then `synced`, then changes as they happen. Ends with the signal or the agent. */
export async function* watchVms(vms: VmManager, signal: AbortSignal): AsyncGenerator<Answer> {
  // Changes are collected from here on, so that none is lost between the list and them.
  const changes = vms.watch(signal)[Symbol.asyncIterator]();
  for (const record of vms.list()) yield { event: { case: 'vm', value: vmMessage(record) } };
  yield { event: { case: 'synced', value: create(WatchVmsResponse_SyncedSchema) } };
  let next = changes.next();
  for (;;) {
    const result = await orTimeout(next, KEEPALIVE_MS);
    if (result === 'timeout') {
      yield { event: { case: 'keepalive', value: create(WatchVmsResponse_KeepAliveSchema) } };
      continue;
    }
    if (result.done) return;
    for (const { id, vm } of result.value) {
      yield { event: vm ? { case: 'vm', value: vmMessage(vm) } : { case: 'destroyed', value: id } };
    }
    next = changes.next();
  }
}

async function orTimeout<T>(promise: Promise<T>, timeoutMs: number): Promise<T | 'timeout'> {
  const { promise: timeout, resolve } = Promise.withResolvers<'timeout'>();
  const timer = setTimeout(() => resolve('timeout'), timeoutMs);
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
