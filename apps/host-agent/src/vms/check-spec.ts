import { availableParallelism, totalmem } from 'node:os';
import type { VmShape } from '@wrenn/hypervisor/hypervisor';
import { WrennError } from '@wrenn/protocol/errors';

export const MIN_MEMORY_MB = 128;
/** How many vCPUs one VM may have for each CPU of the host. */
const CPU_OVERCOMMIT = 4;
/** Left to the host itself. */
const HOST_RESERVE_MB = 256;
/** What ext4 and qcow2 both carry easily; beyond it a caller has mistaken the unit. */
const MAX_DISK_MB = 4 * 1024 * 1024;
const MIB = 1024 * 1024;

/** What a machine can give to VMs. */
export interface HostCapacity {
  readonly cpus: number;
  /** Physical memory, or the limit that this process was given. */
  readonly memoryMb: number;
  /** What of it is free now. */
  readonly availableMemoryMb: number;
}

export function hostCapacity(): HostCapacity {
  const limit = process.constrainedMemory();
  const total = limit > 0 ? Math.min(limit, totalmem()) : totalmem();
  return {
    cpus: availableParallelism(),
    memoryMb: Math.floor(total / MIB),
    availableMemoryMb: Math.floor(process.availableMemory() / MIB),
  };
}

/** @throws WrennError invalid_shape */
export function checkShape(shape: VmShape, host: HostCapacity): void {
  const problem = shapeProblem(shape, host);
  if (problem) throw new WrennError('invalid_shape', { vcpus: shape.vcpus, memory_mb: shape.memoryMb, problem });
}

function shapeProblem({ vcpus, memoryMb }: VmShape, host: HostCapacity): string | undefined {
  const maxCpus = host.cpus * CPU_OVERCOMMIT;
  const maxMemoryMb = host.memoryMb - HOST_RESERVE_MB;
  if (vcpus < 1) return 'at least one vCPU is needed.';
  if (vcpus > maxCpus) return `${maxCpus} vCPUs are the most that this host gives.`;
  if (memoryMb < MIN_MEMORY_MB) return `at least ${MIN_MEMORY_MB} MiB are needed.`;
  if (memoryMb > maxMemoryMb) return `${maxMemoryMb} MiB are the most that this host gives.`;
  if (memoryMb > host.availableMemoryMb) return `${host.availableMemoryMb} MiB are free on this host now.`;
  return undefined;
}

/**
 * Size of the disk that a VM gets: what was asked for, but never less than the template needs.
 *
 * @throws WrennError invalid_request
 */
export function effectiveDiskMb(requestedMb: number, imageBytes: number): number {
  if (requestedMb > MAX_DISK_MB) {
    throw new WrennError('invalid_request', { problem: `disk_mb may be at most ${MAX_DISK_MB}.` });
  }
  return Math.max(requestedMb, Math.ceil(imageBytes / MIB));
}
