import { WrennError } from '@wrenn/protocol/errors';
import type { Vm } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { Db } from '../database/database.ts';
import type { Capsule, Operation } from '../database/schema.ts';
import { askHost } from '../hosts/ask-host.ts';
import type { Host } from '../hosts/host.ts';
import { isHostDeleted } from '../hosts/host-rows.ts';
import { isRunAgain, type OperationContext, type OperationHandlers } from '../operations/operation-runner.ts';
import { findRunningForkOf, listFailed, type OperationOutcome } from '../operations/operation-store.ts';
import { publishSnapshotFor, publishTemplateFor, recordTemplate } from '../placement/publish.ts';
import { makeSnapshot } from '../snapshots/snapshot-lifecycle.ts';
import { findCapsule } from './capsule-store.ts';
import { destroyArgsSchema } from './capsules.ts';
import { forkVm } from './fork-lifecycle.ts';
import { doomObjects } from './leftovers.ts';
import {
  HOST_RETURN_MS,
  hasStarted,
  type LifecycleDeps,
  publicReason,
  refuseMoved,
  requireIn,
} from './lifecycle-deps.ts';
import { hibernateArgsSchema } from './sleep.ts';
import { hibernateVm, pauseVm, resumeVm } from './sleep-lifecycle.ts';
import { recordTrace, StartTrace, traceArgsSchema } from './trace.ts';
import { LostRaceError, transition, transitionWhen } from './transition.ts';
import { guestInit, startChanges } from './vm-facts.ts';

/** How long a destroy waits for the object store before it leaves the removal to others. */
const REMOVE_OBJECTS_MS = 30_000;

/** What is done to capsules. Each can be repeated from its beginning after a crash. */
export function lifecycleHandlers(deps: LifecycleDeps): OperationHandlers {
  return {
    'capsule.create': (operation, context) => createVm(deps, operation, context),
    'capsule.destroy': (operation, context) => destroyVm(deps, operation, context),
    'capsule.pause': (operation, context) => pauseVm(deps, operation, context),
    'capsule.resume': (operation, context) => resumeVm(deps, operation, context),
    'capsule.fork': (operation, context) => forkVm(deps, operation, context),
    'capsule.snapshot': (operation, context) => makeSnapshot(deps, operation, context),
    'capsule.hibernate': (operation, context) => hibernateVm(deps, operation, context),
  };
}

async function createVm(
  deps: LifecycleDeps,
  { capsuleId: id, args }: Operation,
  { signal, step }: OperationContext,
): Promise<OperationOutcome> {
  const { db, hostOf } = deps;
  const trace = new StartTrace(traceArgsSchema.parse(args));
  const capsule = await beginStart(db, id);
  // An earlier run of this operation came to its end, but did not live to say so.
  if (hasStarted(capsule)) return {};
  const host = hostOf(capsule.hostId);
  try {
    step('start microVM');
    const vm = await trace.measureHost(
      () =>
        askHost(host, { signal, patienceMs: HOST_RETURN_MS }, () => createOn(deps, host, capsule, { signal, step })),
      (made) => made.trace,
    );
    await trace.measure('record', () => transition(db, capsule, 'running', startChanges(vm)));
    return { record: (tx) => recordTrace(tx, id, trace.finish('create')) };
  } catch (error) {
    signal.throwIfAborted();
    if (isRunAgain(error, signal)) throw error;
    if (!(error instanceof LostRaceError)) {
      const statusReason = publicReason(error);
      await transitionWhen(db, id, ({ status }) => status === 'starting', 'error', { statusReason });
    }
    // Another run of this operation was quicker, and the microVM is what it recorded.
    const now = await findCapsule(db, id);
    if (now && hasStarted(now)) return {};
    // Somebody ended it meanwhile, and that ending takes the microVM with it.
    if (error instanceof LostRaceError) return await refuseMoved(db, id, 'starting');
    // Reconciliation removes what this leaves when the host does not answer.
    await host
      .destroyVm(id, signal)
      .catch((err: unknown) => deps.log.warn({ err, capsule: id }, 'left to reconciliation'));
    throw error;
  }
}

/** A host that lacks what the capsule is made of is told where it is, and fetches it. */
async function createOn(
  deps: LifecycleDeps,
  host: Host,
  capsule: Capsule,
  { signal, step }: Pick<OperationContext, 'signal' | 'step'>,
): Promise<Vm> {
  const { id, template, vcpus, memoryMb, diskRequestMb: diskMb, snapshotId } = capsule;
  const request = { id, template, vcpus, memoryMb, diskMb, init: guestInit(capsule) };
  const source = snapshotId === null ? {} : { snapshotId };
  try {
    return await host.createVm({ ...request, ...source }, signal);
  } catch (error) {
    if (!(error instanceof WrennError) || error.code !== 'template_not_found') throw error;
    step('fetch');
    const objectKey =
      snapshotId === null
        ? await publishTemplateFor(deps, host.id, template, signal)
        : await publishSnapshotFor(deps, host.id, snapshotId, signal);
    const vm = await host.createVm({ ...request, ...source, objectKey }, signal);
    if (snapshotId === null) await recordTemplate(deps.db, host.id, template);
    return vm;
  }
}

/** The capsule in `starting`, or beyond; an earlier run of the same operation may have brought it there. */
async function beginStart(db: Db, id: string): Promise<Capsule> {
  const moved = await transitionWhen(db, id, ({ status }) => status === 'pending', 'starting');
  if (moved) return moved;
  const found = await findCapsule(db, id);
  return found && hasStarted(found) ? found : requireIn(db, id, 'starting');
}

async function destroyVm(
  deps: LifecycleDeps,
  { capsuleId: id, args }: Operation,
  { signal, step }: OperationContext,
): Promise<OperationOutcome> {
  const { db, guests } = deps;
  const { from } = destroyArgsSchema.parse(args);
  const capsule = await findCapsule(db, id);
  if (capsule?.status !== 'stopping') return {};
  guests.evict(id);
  step('stop what is under way');
  const reason = new WrennError('invalid_state', { id, status: 'stopping', needed: 'alive' });
  await deps.runner().cancelAllBut(id, 'capsule.destroy', reason);
  await letForkEnd(deps, capsule, signal);
  step('end microVM');
  if (from === 'hibernated') await removeCopy(deps, capsule, signal);
  else await endVm(deps, capsule, signal);
  step('record');
  const objectKeys = await objectKeysOf(db, capsule);
  await db.transaction(async (tx) => {
    await transitionWhen(tx, id, ({ status }) => status === 'stopping', 'stopped', { objectKey: null, hostIp: null });
    await doomObjects(tx, objectKeys);
  });
  const soon = AbortSignal.any([signal, AbortSignal.timeout(REMOVE_OBJECTS_MS)]);
  await deps.leftovers
    .removeNow(objectKeys, soon)
    .catch((err: unknown) => deps.log.warn({ err, capsule: id }, 'its objects are removed later'));
  return {};
}

/** Only the host can say that the microVM is gone, as long as anybody will ever hear of that host again. */
async function endVm({ db, hostOf }: LifecycleDeps, { id, hostId }: Capsule, signal: AbortSignal): Promise<void> {
  try {
    const host = hostOf(hostId);
    await askHost(host, { signal }, () => host.destroyVm(id, signal));
  } catch (error) {
    signal.throwIfAborted();
    if (!(await isHostDeleted(db, hostId))) throw error;
  }
}

/** A hibernated capsule has no microVM; its last host may only have kept a copy, and need not be there any more. */
async function removeCopy({ hostOf, log }: LifecycleDeps, capsule: Capsule, signal: AbortSignal): Promise<void> {
  try {
    const host = hostOf(capsule.hostId);
    if (host.online) await host.destroyVm(capsule.id, signal);
  } catch (err) {
    signal.throwIfAborted();
    log.warn({ err, capsule: capsule.id }, 'left to reconciliation');
  }
}

/** A child of a fork that is still being made: its host must not make it after it was destroyed. */
async function letForkEnd({ db, runner }: LifecycleDeps, capsule: Capsule, signal: AbortSignal): Promise<void> {
  if (!capsule.forkedFrom) return;
  const fork = await findRunningForkOf(db, capsule.id, capsule.forkedFrom);
  if (!fork) return;
  await runner()
    .wait(fork.id, signal)
    .catch(() => signal.throwIfAborted());
}

/** What a capsule has in the object store: its last generation, and what failed hibernations may have left. */
async function objectKeysOf(db: Db, { id, objectKey }: Capsule): Promise<string[]> {
  const failed = await listFailed(db, id, 'capsule.hibernate');
  const keys = failed.map(({ args }) => hibernateArgsSchema.parse(args).objectKey);
  return [...new Set([...keys, ...(objectKey ? [objectKey] : [])])];
}
