import type { GuestKernel } from '@wrenn/guest-image/catalog';
import { asHostDiskFull } from '../disk/disk-full.ts';
import type { VmRecord } from '../journal/vm-record.ts';
import type { StartSource } from '../snapshots/start-source.ts';
import { hostCapacity } from '../vms/check-spec.ts';
import { compactInBackground } from '../vms/compact-disk.ts';
import { runVm } from '../vms/run-vm.ts';
import { startError } from '../vms/start-vm.ts';
import type { Trace } from '../vms/trace.ts';
import type { GuestInit, VmEntry } from '../vms/vm.ts';
import type { VmContext } from '../vms/vm-context.ts';
import { handOver } from './hand-over.ts';
import { PooledVm } from './pooled-vm.ts';
import type { PoolKind } from './waiting-vm.ts';
import type { WarmPool } from './warm-pool.ts';

/** When so many VMs of the pool in a row cannot be handed over, one is started, so that nobody waits for all of them. */
const MAX_FAILURES = 2;

export interface TakeOrRun {
  /** The capsule's first record. */
  readonly record: VmRecord;
  readonly source: StartSource;
  readonly kernel: GuestKernel;
  readonly init: GuestInit;
  /** What holds the snapshot that it starts from: another object once that was found damaged, or was made anew. */
  readonly origin: object;
  /** Equal for VMs that are alike before they have a tenant. */
  readonly key: string;
  /** Whether a create of now would come to the same key. */
  readonly isCurrent: () => Promise<boolean>;
}

/**
 * Makes a new capsule's VM run: one of the warm pool where one of its kind waits, else one that is started now.
 *
 * @throws StartFailedError as `runVm`, or WrennError host_disk_full
 */
export async function takeOrRun(
  context: VmContext,
  start: TakeOrRun,
  trace: Trace,
  signal: AbortSignal,
): Promise<VmEntry> {
  const { pool, registry, log } = context;
  const { record, init, source, kernel } = start;
  pool.note(poolKind(context, start));
  for (let failures = 0; failures < MAX_FAILURES; ) {
    const vm = pool.take(start.key);
    if (!vm) break;
    if (vm.origin !== start.origin) {
      void pool.discard(vm);
      continue;
    }
    try {
      const entry = await handOver(context, vm, { record, init }, trace, signal);
      registry.put(entry);
      registry.watchExit(entry);
      compactInBackground(context, entry);
      log.info({ vm: record.id, trace: trace.steps }, 'VM taken from the warm pool');
      return entry;
    } catch (error) {
      failures += 1;
      const discarded = pool.discard(vm);
      if (signal.aborted) {
        await discarded;
        throw startError(error, signal);
      }
      log.error({ vm: vm.vmId, err: error }, 'a VM of the warm pool could not be handed over');
      const diskFull = asHostDiskFull(error);
      if (diskFull) throw diskFull;
    }
  }
  const entry: VmEntry = { record, ended: new AbortController() };
  await runVm(context, entry, { source, kernel, init }, trace, signal);
  return entry;
}

function poolKind(context: VmContext, start: TakeOrRun): PoolKind<PooledVm> {
  const { key, isCurrent, record, source, kernel, origin } = start;
  const { shape, template, snapshotId, versions } = record;
  const { dir, journal, resources, log } = context;
  return {
    key,
    memoryMb: shape.memoryMb,
    isCurrent,
    begin: () => {
      const start = { origin, source, kernel, shape, template, snapshotId, versions };
      return new PooledVm({ dir, journal, resources, log }, start);
    },
  };
}

/** Gives up VMs of the pool for as long as the host lacks memory for VMs that are asked for. */
export async function makeRoom(pool: WarmPool<PooledVm>, memoryMb: number): Promise<void> {
  while (hostCapacity().availableMemoryMb < memoryMb) {
    if (!(await pool.evict())) return;
  }
}
