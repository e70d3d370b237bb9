import type { ServiceImpl } from '@connectrpc/connect';
import { type HostService, MemoryUse } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { VmManager } from '../vms/vm-manager.ts';
import { checkedGeneration, checkedId, checkedObjectKey, checkedSnapshotId, guestInit } from './request-fields.ts';
import { snapshotMessage, vmMessage } from './vm-message.ts';

type SleepVerbs =
  | 'pauseVm'
  | 'resumeVm'
  | 'forkVm'
  | 'snapshotVm'
  | 'deleteSnapshot'
  | 'verifyVm'
  | 'hibernateVm'
  | 'forgetVm'
  | 'deleteHibernated';

/** The verbs that put VMs to sleep, wake them and multiply them. */
export function sleepService(vms: VmManager): Pick<ServiceImpl<typeof HostService>, SleepVerbs> {
  return {
    pauseVm: async ({ id, generation }, { signal }) => {
      const { result, trace } = await vms.pause(checkedId(id), checkedGeneration(generation), signal);
      return { vm: vmMessage(result), trace: [...trace] };
    },
    resumeVm: async ({ id, generation, init, memory, objectKey }, { signal }) => {
      const request = {
        id: checkedId(id),
        generation: checkedGeneration(generation),
        init: guestInit(init),
        memory: memory === MemoryUse.DISCARD ? 'discard' : 'keep',
        objectKey: objectKey ? checkedObjectKey(objectKey) : undefined,
      } as const;
      return { vm: vmMessage(await vms.resume(request, signal)) };
    },
    forkVm: async ({ id, children }, { signal }) => {
      const wanted = children.map((child) => ({ id: checkedId(child.id), init: guestInit(child.init) }));
      const { result, trace } = await vms.fork(checkedId(id), wanted, signal);
      return { vms: result.map(vmMessage), trace: [...trace] };
    },
    snapshotVm: async ({ id, snapshotId }, { signal }) => {
      const { result, trace } = await vms.snapshot(checkedId(id), checkedSnapshotId(snapshotId), signal);
      return { snapshot: snapshotMessage(result), trace: [...trace] };
    },
    deleteSnapshot: async ({ snapshotId }, { signal }) => {
      await vms.deleteSnapshot(checkedSnapshotId(snapshotId), signal);
      return {};
    },
    verifyVm: async ({ id }, { signal }) => {
      const { generation, files } = await vms.verify(checkedId(id), signal);
      return {
        generation,
        files: files.map(({ name, sizeBytes, problem }) => {
          return { name, sizeBytes: BigInt(sizeBytes), problem: problem ?? '' };
        }),
      };
    },
    hibernateVm: async ({ id, generation, objectKey }, { signal }) => {
      const key = checkedObjectKey(objectKey);
      const { result, trace } = await vms.hibernate(checkedId(id), checkedGeneration(generation), key, signal);
      return { storedBytes: BigInt(result.storedBytes), trace: [...trace] };
    },
    forgetVm: async ({ id, generation }, { signal }) => {
      await vms.forget(checkedId(id), checkedGeneration(generation), signal);
      return {};
    },
    deleteHibernated: async ({ objectKey }, { signal }) => {
      await vms.deleteHibernated(checkedObjectKey(objectKey), signal);
      return {};
    },
  };
}
