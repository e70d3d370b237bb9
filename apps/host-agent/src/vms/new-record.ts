import { randomBytes } from 'node:crypto';
import type { VmRecord } from '../journal/vm-record.ts';
import type { StartSource } from '../snapshots/start-source.ts';
import type { GuestInit } from './vm.ts';
import { initDigest } from './vm-settings.ts';

export interface NewVm {
  /** Empty: it waits for a capsule. */
  readonly id: string;
  readonly template: string;
  readonly snapshotId?: string | undefined;
  readonly shape: VmRecord['shape'];
  readonly requestedDiskMb: number;
  readonly source: StartSource;
  readonly init: GuestInit;
  /** The generation that it goes on from; 0: none. */
  readonly generation?: number;
  readonly createdAt?: string | undefined;
  readonly versions: VmRecord['versions'];
}

/** The first record of a VM that is about to be made. */
export function newRecord(vm: NewVm): VmRecord {
  const { source, init, shape } = vm;
  return {
    version: 2,
    vmId: newVmId(),
    id: vm.id,
    phase: 'creating',
    template: vm.template,
    imageSha256: source.imageSha256,
    ...(vm.snapshotId ? { snapshotId: vm.snapshotId } : {}),
    shape: { vcpus: shape.vcpus, memoryMb: shape.memoryMb },
    requestedDiskMb: vm.requestedDiskMb,
    diskMb: source.diskMb,
    layers: [...source.layers],
    sharedLayers: source.sharedLayers,
    layerSums: source.layerSums,
    initDigest: initDigest(init),
    accessToken: init.accessToken,
    defaults: source.defaults,
    generation: vm.generation ?? 0,
    memoryDiscarded: source.memory === undefined,
    createdAt: vm.createdAt ?? new Date().toISOString(),
    versions: vm.versions,
    trace: [],
  };
}

/** Short, because it is part of the path of a socket, which Linux keeps in 108 bytes. */
function newVmId(): string {
  return `vm-${randomBytes(8).toString('hex')}`;
}
