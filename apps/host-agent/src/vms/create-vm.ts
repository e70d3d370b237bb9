import { WrennError } from '@wrenn/protocol/errors';
import { asHostDiskFull } from '../disk/disk-full.ts';
import { sha256In } from '../objects/stored-image.ts';
import { makeRoom, takeOrRun } from '../pool/take-or-run.ts';
import { startSource } from '../snapshots/start-source.ts';
import type { TemplateSnapshot } from '../templates/template-store.ts';
import { checkShape, hostCapacity } from './check-spec.ts';
import { fetchSnapshot, touchSnapshot } from './exchange-snapshot.ts';
import { newRecord } from './new-record.ts';
import { planVm, requireKernel, templateKeyNow, type VmPlan } from './plan-vm.ts';
import { StartFailedError } from './run-vm.ts';
import { requireSnapshot } from './snapshot-vm.ts';
import { SnapshotRefusedError, startError } from './start-vm.ts';
import type { Trace } from './trace.ts';
import type { VmEntry, VmRequest } from './vm.ts';
import type { VmContext } from './vm-context.ts';
import { initDigest } from './vm-settings.ts';

/** @throws WrennError of every kind that a start can end with; nothing of the VM is left then. */
export async function createVm(
  context: VmContext,
  request: VmRequest,
  trace: Trace,
  signal: AbortSignal,
): Promise<VmEntry> {
  if (request.snapshotId) return createFromSnapshot(context, request, request.snapshotId, trace, signal);
  const { dir, resources, pool, images } = context;
  await makeRoom(pool, request.shape.memoryMb);
  const sha256 = request.objectKey && sha256In(request.objectKey);
  if (sha256) await images.touch(await trace.step('fetch', () => images.get(request.template, sha256, signal)));
  const plan = await trace.step('plan', () => planVm(dir, resources.hypervisor.identity, request));
  return createFromTemplate(context, request, plan, trace, signal);
}

/** One more with the same snapshot, one with a new one. */
const MAX_ATTEMPTS = 3;

async function createFromTemplate(
  context: VmContext,
  request: VmRequest,
  plan: VmPlan,
  trace: Trace,
  signal: AbortSignal,
): Promise<VmEntry> {
  const { dir, templates, resources } = context;
  const { id, template, shape, diskMb: requestedDiskMb, init } = request;
  for (let attempt = 1; ; attempt++) {
    const snapshot = await trace.step('template', () =>
      templates.get(plan, signal).catch((error: unknown) => Promise.reject(startError(error, signal))),
    );
    const { source } = snapshot;
    const versions = versionsOf(context, plan);
    const record = newRecord({ id, template, shape, requestedDiskMb, source, init, versions });
    const isCurrent = async () =>
      templates.has(snapshot) &&
      (await templateKeyNow(dir, resources.hypervisor.identity, request).catch(ignoreRefusal)) === snapshot.key;
    const start = { record, source, kernel: plan.kernel, init, origin: snapshot, key: snapshot.key, isCurrent };
    try {
      return await takeOrRun(context, start, trace, signal);
    } catch (error) {
      if (!(error instanceof StartFailedError)) throw error;
      const worthAnother = attempt < MAX_ATTEMPTS && !signal.aborted && !asHostDiskFull(error.failure);
      if (!worthAnother || !(await mendSnapshot(context, snapshot, error.cause, attempt))) throw error.failure;
    }
  }
}

async function createFromSnapshot(
  context: VmContext,
  request: VmRequest,
  snapshotId: string,
  trace: Trace,
  signal: AbortSignal,
): Promise<VmEntry> {
  const { id, init, diskMb: requestedDiskMb, shape } = request;
  const { objectKey } = request;
  if (objectKey) {
    await trace.step('fetch', () =>
      context.queue.run(snapshotId, () => fetchSnapshot(context, snapshotId, objectKey, signal)),
    );
  }
  const kept = requireSnapshot(context, snapshotId);
  await touchSnapshot(kept);
  const manifest = await trace.step('plan', () => context.snapshots.require(kept, true));
  const { vcpus, memoryMb } = manifest.shape;
  if (shape.vcpus !== vcpus || shape.memoryMb !== memoryMb) {
    const problem = `its snapshot has ${vcpus} vCPUs and ${memoryMb} MiB.`;
    throw new WrennError('invalid_shape', { vcpus: shape.vcpus, memory_mb: shape.memoryMb, problem });
  }
  await makeRoom(context.pool, memoryMb);
  checkShape(shape, hostCapacity());
  const source = startSource(kept.dir, manifest);
  const versions = { ...manifest.versions, agent_version: context.agentVersion };
  const { template } = manifest;
  const record = newRecord({ id, template, snapshotId, shape, requestedDiskMb, source, init, versions });
  const kernel = await requireKernel(context.dir);
  const isCurrent = async () => context.snapshots.latest(snapshotId) === kept;
  const start = { record, source, kernel, init, origin: kept, key: `${snapshotId}:${kernel.version}`, isCurrent };
  try {
    return await takeOrRun(context, start, trace, signal);
  } catch (error) {
    if (!(error instanceof StartFailedError)) throw error;
    const damaged =
      signal.aborted || asHostDiskFull(error.failure) ? undefined : context.snapshots.recheck(kept, signal);
    throw (await damaged) ?? error.failure;
  }
}

export function versionsOf({ resources, agentVersion }: VmContext, plan: VmPlan): Record<string, string> {
  return {
    kernel_version: plan.kernel.version,
    hypervisor_version: resources.hypervisor.identity.version,
    agent_version: agentVersion,
    envd_version: plan.image.manifest.envdVersion,
  };
}

/** A template that is gone, or that this host no longer takes, has no key. */
function ignoreRefusal(error: unknown): undefined {
  if (!(error instanceof WrennError)) throw error;
}

/** Whether another attempt may go better: the snapshot from which a VM did not start is made anew where that is why. */
async function mendSnapshot(
  { templates, pool }: VmContext,
  snapshot: TemplateSnapshot,
  error: unknown,
  attempt: number,
): Promise<boolean> {
  const refused = error instanceof SnapshotRefusedError;
  await pool.drain(snapshot.key);
  // Once says little: a hypervisor that was killed looks the same, and a new snapshot takes as long as a cold boot.
  if (!refused || attempt === 1) return (await templates.discardIfBroken(snapshot)) || refused;
  await templates.discard(snapshot);
  return true;
}

/** Whether the VM is what an equal request made. */
export function isSameRequest({ record }: VmEntry, request: VmRequest): boolean {
  return (
    (record.snapshotId ?? '') === (request.snapshotId ?? '') &&
    (request.snapshotId !== undefined || record.template === request.template) &&
    record.shape.vcpus === request.shape.vcpus &&
    record.shape.memoryMb === request.shape.memoryMb &&
    record.requestedDiskMb === request.diskMb &&
    record.initDigest === initDigest(request.init)
  );
}
