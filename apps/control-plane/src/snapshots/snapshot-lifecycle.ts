import { WrennError } from '@wrenn/protocol/errors';
import { actorById } from '../capsules/capsule-events.ts';
import type { LifecycleDeps } from '../capsules/lifecycle-deps.ts';
import type { Operation } from '../database/schema.ts';
import { askHost } from '../hosts/ask-host.ts';
import { isRunAgain, type OperationContext } from '../operations/operation-runner.ts';
import type { OperationOutcome } from '../operations/operation-store.ts';
import { publishSnapshot } from './snapshot-events.ts';
import { findSnapshot, markFailed, markReady } from './snapshot-store.ts';
import { snapshotArgsSchema } from './snapshots.ts';

/** The capsule stays as it is, running or paused: its host does one thing to it after the other. */
export async function makeSnapshot(
  { db, hostOf, leftovers }: LifecycleDeps,
  { capsuleId, args, actor }: Operation,
  { signal, step }: OperationContext,
): Promise<OperationOutcome> {
  const { snapshotId } = snapshotArgsSchema.parse(args);
  const row = await findSnapshot(db, snapshotId);
  if (row?.status === 'ready') return {};
  try {
    if (row?.status !== 'making') throw new WrennError('not_found', { what: `The snapshot ${snapshotId}` });
    const host = hostOf(row.hostId);
    step('make snapshot');
    const made = await askHost(host, { signal }, () => host.snapshotVm(capsuleId, snapshotId, signal));
    step('record');
    await db.transaction(async (tx) => {
      const isNew = await markReady(tx, snapshotId, {
        vcpus: made.shape?.vcpus ?? row.vcpus,
        memoryMb: made.shape?.memoryMb ?? row.memoryMb,
        diskMb: made.diskMb || row.diskMb,
        sizeBytes: Number(made.sizeBytes),
      });
      if (isNew) await publishSnapshot(tx, 'template.snapshot.created', row, await actorById(tx, actor));
    });
    return {};
  } catch (error) {
    // The next run asks for the same snapshot.
    if (isRunAgain(error, signal)) throw error;
    if (!(await markFailed(db, snapshotId))) return {};
    leftovers.nudge();
    signal.throwIfAborted();
    throw error;
  }
}
