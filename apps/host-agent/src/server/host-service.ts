import { statfs } from 'node:fs/promises';
import type { ServiceImpl } from '@connectrpc/connect';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { listImages, newestKernel } from '@wrenn/guest-image/catalog';
import type { HypervisorIdentity } from '@wrenn/hypervisor/hypervisor';
import { WrennError } from '@wrenn/protocol/errors';
import type { CreateVmRequest, HelloRequest, HostService } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { VmSampler } from '../metrics/vm-sampler.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { storeIdentity } from '../objects/store-identity.ts';
import type { TemplateStore } from '../templates/template-store.ts';
import { hostCapacity } from '../vms/check-spec.ts';
import type { VmRequest } from '../vms/vm.ts';
import { CONSOLE_TAIL_BYTES } from '../vms/vm-folder.ts';
import type { VmManager } from '../vms/vm-manager.ts';
import { readStats } from './read-stats.ts';
import { checkedId, checkedObjectKey, checkedSnapshotId, guestInit } from './request-fields.ts';
import { sleepService } from './sleep-service.ts';
import { vmMessage } from './vm-message.ts';
import { watchVms } from './watch-vms.ts';

/** Versions of wrenn.host.v1 that this agent speaks. */
const PROTOCOL = { min: 1, max: 1 } as const;
const MIB = 1024 * 1024;
/** Less than a hello may take. */
const STORE_TIMEOUT_MS = 3000;
/** Above the limit that the driver keeps consoles to. */
const MAX_CONSOLE_BYTES = 4 * MIB;

export interface HostServiceOptions {
  readonly dir: WrennDir;
  readonly vms: VmManager;
  readonly templates: TemplateStore;
  readonly objects: ObjectStore;
  readonly sampler: Pick<VmSampler, 'readSamples'>;
  readonly identity: HypervisorIdentity;
  readonly agentVersion: string;
}

/** The verbs of wrenn.host.v1. Errors are WrennErrors; the server turns them into Connect's. */
export function hostService(options: HostServiceOptions): ServiceImpl<typeof HostService> {
  const { vms } = options;
  return {
    hello: (request) => hello(options, request),
    createVm: async (request, { signal }) => ({ vm: vmMessage(await vms.create(vmRequest(request), signal)) }),
    destroyVm: async ({ id }, { signal }) => {
      await vms.destroy(checkedId(id), signal);
      return {};
    },
    getVm: ({ id }) => ({ vm: vmMessage(vms.get(checkedId(id))) }),
    listVms: () => ({ vms: vms.list().map(vmMessage) }),
    watchVms: (_request, { signal }) => watchVms(vms, signal),
    readStats: (request) => readStats(options.sampler, request),
    getVmConsole: async ({ id, maxBytes }) => {
      const wanted = Math.min(maxBytes || CONSOLE_TAIL_BYTES, MAX_CONSOLE_BYTES);
      return { data: Uint8Array.from(await vms.console(checkedId(id), wanted)) };
    },
    publishTemplate: async ({ name }, { signal }) => ({ objectKey: await vms.publishTemplate(name, signal) }),
    publishSnapshot: async ({ snapshotId }, { signal }) => {
      return { objectKey: await vms.publishSnapshot(checkedSnapshotId(snapshotId), signal) };
    },
    ...sleepService(vms),
  };
}

async function hello(options: HostServiceOptions, request: HelloRequest) {
  const { dir, templates, objects, identity, agentVersion } = options;
  if (request.protocolMin > PROTOCOL.max || request.protocolMax < PROTOCOL.min) {
    const asked = `${request.protocolMin} to ${request.protocolMax}`;
    const problem = `this agent speaks version ${PROTOCOL.max} of the host protocol, not ${asked}`;
    throw new WrennError('protocol_mismatch', { problem });
  }
  const [images, kernel, disk, objectStore] = await Promise.all([
    ...([listImages(dir), newestKernel(dir), statfs(dir.root)] as const),
    // A host whose store does not answer is as good as another for all that needs no store.
    storeIdentity(objects, AbortSignal.timeout(STORE_TIMEOUT_MS)).catch(() => ''),
  ]);
  const { cpus, memoryMb } = hostCapacity();
  return {
    protocol: Math.min(request.protocolMax, PROTOCOL.max),
    agentVersion,
    arch: identity.arch,
    cpuCount: cpus,
    memoryMb: BigInt(memoryMb),
    diskMb: BigInt(Math.floor((disk.blocks * disk.bsize) / MIB)),
    diskFreeMb: BigInt(Math.floor((disk.bavail * disk.bsize) / MIB)),
    hypervisor: identity.kind,
    hypervisorVersion: identity.version,
    accelerator: identity.accelerator,
    cpu: identity.cpu,
    objectStore,
    kernelVersion: kernel?.version ?? '',
    templates: images.map(({ name, manifest }) => ({
      name,
      sha256: manifest.sha256,
      envdVersion: manifest.envdVersion,
      warmShapes: [...templates.warmShapes(manifest.sha256)],
    })),
  };
}

function vmRequest(request: CreateVmRequest): VmRequest {
  const { shape, init, snapshotId, objectKey } = request;
  return {
    id: checkedId(request.id),
    template: request.template,
    ...(snapshotId ? { snapshotId: checkedSnapshotId(snapshotId) } : {}),
    ...(objectKey ? { objectKey: checkedObjectKey(objectKey) } : {}),
    shape: { vcpus: shape?.vcpus ?? 0, memoryMb: shape?.memoryMb ?? 0 },
    diskMb: request.diskMb,
    init: guestInit(init),
  };
}
