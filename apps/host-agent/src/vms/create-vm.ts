import { WrennError } from '@wrenn/protocol/errors';
import { asHostDiskFull } from '../disk/disk-full.ts';
import { startSource } from '../snapshots/start-source.ts';
import type { TemplateSnapshot } from '../templates/template-store.ts';
import { checkShape, hostCapacity } from './check-spec.ts';
import { newRecord } from './new-record.ts';
import { planVm, requireKernel, type VmPlan } from './plan-vm.ts';
import { runVm, StartFailedError } from './run-vm.ts';
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
  const { dir, resources } = context;
  const plan = await trace.step('plan', () => planVm(dir, resources.hypervisor.identity, request));
  return createFromTemplate(context, request, plan, trace, signal);
}

async function createFromTemplate(
  context: VmContext,
  request: VmRequest,
  plan: VmPlan,
  trace: Trace,
  signal: AbortSignal,
): Promise<VmEntry> {
  const { templates } = context;
  const { id, template, shape, diskMb: requestedDiskMb, init } = request;
  for (let attempt = 1; ; attempt++) {
    const snapshot = await trace.step('template', () =>
      templates.get(plan, signal).catch((error: unknown) => Promise.reject(startError(error, signal))),
    );
    const { source } = snapshot;
    const versions = versionsOf(context, plan);
    const record = newRecord({ id, template, shape, requestedDiskMb, source, init, versions });
    const entry: VmEntry = { record, ended: new AbortController() };
    try {
      await runVm(context, entry, { source, kernel: plan.kernel, init }, trace, signal);
      return entry;
    } catch (error) {
      if (!(error instanceof StartFailedError)) throw error;
      const worthAnother = attempt === 1 && !signal.aborted && !asHostDiskFull(error.failure);
      if (!worthAnother || !(await mendSnapshot(context, snapshot, error.cause))) throw error.failure;
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
  const kept = requireSnapshot(context, snapshotId);
  const manifest = await trace.step('plan', () => context.snapshots.require(kept, true));
  const { vcpus, memoryMb } = manifest.shape;
  if (shape.vcpus !== vcpus || shape.memoryMb !== memoryMb) {
    const problem = `its snapshot has ${vcpus} vCPUs and ${memoryMb} MiB.`;
    throw new WrennError('invalid_shape', { vcpus: shape.vcpus, memory_mb: shape.memoryMb, problem });
  }
  checkShape(shape, hostCapacity());
  const source = startSource(kept.dir, manifest);
  const versions = { ...manifest.versions, agent_version: context.agentVersion };
  const { template } = manifest;
  const record = newRecord({ id, template, snapshotId, shape, requestedDiskMb, source, init, versions });
  const entry: VmEntry = { record, ended: new AbortController() };
  const kernel = await requireKernel(context.dir);
  try {
    await runVm(context, entry, { source, kernel, init }, trace, signal);
  } catch (error) {
    if (!(error instanceof StartFailedError)) throw error;
    const damaged =
      signal.aborted || asHostDiskFull(error.failure) ? undefined : context.snapshots.recheck(kept, signal);
    throw (await damaged) ?? error.failure;
  }
  return entry;
}

export function versionsOf({ resources, agentVersion }: VmContext, plan: VmPlan): Record<string, string> {
  return {
    kernel_version: plan.kernel.version,
    hypervisor_version: resources.hypervisor.identity.version,
    agent_version: agentVersion,
    envd_version: plan.image.manifest.envdVersion,
  };
}

/** Whether a new snapshot will be made in place of the one from which a VM did not start. */
async function mendSnapshot({ templates }: VmContext, snapshot: TemplateSnapshot, error: unknown): Promise<boolean> {
  if (!(error instanceof SnapshotRefusedError)) return templates.discardIfBroken(snapshot);
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
