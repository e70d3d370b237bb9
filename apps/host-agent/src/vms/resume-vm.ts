import { WrennError } from '@wrenn/protocol/errors';
import { asHostDiskFull } from '../disk/disk-full.ts';
import { makeRoom } from '../pool/take-or-run.ts';
import type { SleepingVm } from '../snapshots/snapshot-store.ts';
import { startSource, withoutMemory } from '../snapshots/start-source.ts';
import { checkShape, hostCapacity } from './check-spec.ts';
import { downloadGeneration } from './download-generation.ts';
import { newRecord } from './new-record.ts';
import { requireKernel } from './plan-vm.ts';
import { runVm, StartFailedError } from './run-vm.ts';
import type { Trace } from './trace.ts';
import type { GuestInit, VmEntry } from './vm.ts';
import type { VmContext } from './vm-context.ts';

export interface ResumeRequest {
  readonly id: string;
  readonly generation: number;
  readonly init: GuestInit;
  /** `discard`: boot the disk without the memory that it slept with. */
  readonly memory: 'keep' | 'discard';
  /** Where the generation is in the object store, when the host may not have it. */
  readonly objectKey: string | undefined;
}

/**
 * Makes a VM of a sleeping one. Its generation stays until the next one is complete.
 *
 * @throws WrennError capsule_not_found, snapshot_damaged, snapshot_incompatible, and of every kind that a start can end with
 */
export async function resumeVm(
  context: VmContext,
  request: ResumeRequest,
  trace: Trace,
  signal: AbortSignal,
): Promise<VmEntry> {
  const { dir, snapshots, log } = context;
  const { id, init, memory } = request;
  const sleeping = await findGeneration(context, request, trace, signal);
  const manifest = await trace.step('plan', () => snapshots.require(sleeping, memory === 'keep'));
  await makeRoom(context.pool, manifest.shape.memoryMb);
  checkShape(manifest.shape, hostCapacity());
  const kept = startSource(sleeping.dir, manifest);
  const source = memory === 'keep' ? kept : withoutMemory(kept);
  const record = newRecord({
    ...manifest,
    id,
    source,
    init,
    generation: sleeping.generation,
    createdAt: manifest.capsuleCreatedAt,
    versions: { ...manifest.versions, agent_version: context.agentVersion },
  });
  const entry: VmEntry = { record, ended: new AbortController() };
  try {
    await runVm(context, entry, { source, kernel: await requireKernel(dir), init }, trace, signal);
  } catch (error) {
    if (!(error instanceof StartFailedError)) throw error;
    if (signal.aborted || asHostDiskFull(error.failure)) throw error.failure;
    const problem = await snapshots.recheck(sleeping, signal);
    if (problem) log.error({ vm: id, err: problem }, 'a VM did not wake because its snapshot is damaged');
    throw problem ?? error.failure;
  }
  return entry;
}

async function findGeneration(
  context: VmContext,
  { id, generation, objectKey }: ResumeRequest,
  trace: Trace,
  signal: AbortSignal,
): Promise<SleepingVm> {
  const found = context.snapshots.latest(id);
  if (found?.generation === generation) return found;
  if (found && found.generation > generation) {
    const problem = `generation ${generation} of ${id} is older than its last one, ${found.generation}`;
    throw new WrennError('invalid_request', { problem });
  }
  if (!objectKey) throw new WrennError('capsule_not_found', { id });
  return trace.step('download', () => downloadGeneration(context, { id, generation, objectKey }, signal));
}
