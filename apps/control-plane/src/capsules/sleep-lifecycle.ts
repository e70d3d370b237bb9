import { WrennError } from '@wrenn/protocol/errors';
import { type Vm, VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { Db } from '../database/database.ts';
import type { Capsule, Operation } from '../database/schema.ts';
import { askHost } from '../hosts/ask-host.ts';
import type { Host } from '../hosts/host.ts';
import { isRunAgain, type OperationContext } from '../operations/operation-runner.ts';
import { findRunning, type OperationOutcome } from '../operations/operation-store.ts';
import { findCapsule, lockCapsule } from './capsule-store.ts';
import { doomObjects } from './leftovers.ts';
import { HOST_RETURN_MS, type LifecycleDeps, publicReason, refuseMoved, requireIn } from './lifecycle-deps.ts';
import { hibernateArgsSchema, pauseArgsSchema, resumeArgsSchema } from './sleep.ts';
import { recordTrace, StartTrace } from './trace.ts';
import { LostRaceError, transition, transitionWhen } from './transition.ts';
import { followHost, guestInit, sleepChanges, startChanges } from './vm-facts.ts';

/** What a capsule becomes only after it was resumed. */
const AWAKE: readonly Capsule['status'][] = ['running', 'forking', 'pausing'];

/** A capsule is pausing until its host has said what became of it, however long that host is silent. */
export async function pauseVm(
  deps: LifecycleDeps,
  { capsuleId: id, args }: Operation,
  { signal, step }: OperationContext,
): Promise<OperationOutcome> {
  const { db, hostOf, guests } = deps;
  const { generation } = pauseArgsSchema.parse(args);
  const found = await findCapsule(db, id);
  // An earlier run of this operation came to its end, but did not live to say so.
  if (hasSlept(found, generation)) return {};
  const capsule = await requireIn(db, id, 'pausing');
  const host = hostOf(capsule.hostId);
  step('pause microVM');
  try {
    const vm = await pauseOnHost(host, id, generation, signal);
    await transition(db, capsule, 'paused', sleepChanges(vm));
  } catch (error) {
    signal.throwIfAborted();
    if (isRunAgain(error, signal)) throw error;
    // Else another run of this operation was quicker.
    if (!hasSlept(await findCapsule(db, id), generation)) {
      if (error instanceof LostRaceError) return await refuseMoved(db, id, 'pausing');
      const vm = await askHost(host, { signal }, () => host.getVm(id, signal));
      const now = await followHost(db, capsule, vm, publicReason(error));
      if (now?.status !== 'running') guests.evict(id);
      throw error;
    }
  }
  guests.evict(id);
  return {};
}

function hasSlept(capsule: Capsule | undefined, generation: number): boolean {
  return capsule !== undefined && capsule.generation >= generation;
}

/** Asks again as long as the host is at it. */
async function pauseOnHost(host: Host, id: string, generation: number, signal: AbortSignal): Promise<Vm> {
  for (;;) {
    try {
      const { vm } = await askHost(host, { signal }, () => host.pauseVm(id, generation, signal));
      if (vm?.state === VmState.PAUSED && vm.generation === generation) return vm;
      throw new WrennError('internal_error', {}, { cause: new Error(`paused, but state ${vm?.state}`) });
    } catch (error) {
      signal.throwIfAborted();
      const vm = await askHost(host, { signal }, () => host.getVm(id, signal));
      if (vm?.state === VmState.PAUSED && vm.generation === generation) return vm;
      if (vm?.state !== VmState.PAUSING) throw error;
    }
  }
}

export async function resumeVm(
  deps: LifecycleDeps,
  { capsuleId: id, args }: Operation,
  { signal, step }: OperationContext,
): Promise<OperationOutcome> {
  const { db, hostOf, guests, leftovers } = deps;
  const { generation, memory, from, reason, objectKey, ...times } = resumeArgsSchema.parse(args);
  const trace = new StartTrace(times);
  const found = await findCapsule(db, id);
  // As in a pause.
  if (hasWoken(found, generation)) return {};
  const capsule = await requireIn(db, id, 'resuming');
  const host = hostOf(capsule.hostId);
  // Connections to the guest as it was before it slept.
  guests.evict(id);
  const recordAwake = (vm: Vm) =>
    db.transaction(async (tx) => {
      const bytes = objectKey ? { snapshotBytes: Number(vm.snapshotBytes) } : {};
      const snapshotProblem = vm.snapshotProblem || null;
      await transition(tx, capsule, 'running', { ...startChanges(vm), ...bytes, snapshotProblem, objectKey: null });
      if (objectKey) await doomObjects(tx, [objectKey]);
    });
  await letHibernationEnd(deps, id, signal);
  step('resume microVM');
  try {
    const vm = await trace.measureHost(
      () =>
        askHost(host, { signal, patienceMs: HOST_RETURN_MS }, () =>
          host.resumeVm(
            { id, generation, init: guestInit(capsule), memory, objectKey: objectKey ?? undefined },
            signal,
          ),
        ),
      (resumed) => resumed.trace,
    );
    await trace.measure('record', () => recordAwake(vm));
  } catch (error) {
    signal.throwIfAborted();
    if (isRunAgain(error, signal)) throw error;
    // Another run of this operation was quicker.
    if (hasWoken(await findCapsule(db, id), generation)) return {};
    if (error instanceof LostRaceError) return await refuseMoved(db, id, 'resuming');
    const awake = await host.getVm(id, signal).catch(() => undefined);
    // It was only the answer that was lost.
    if (awake?.state === VmState.RUNNING) await recordAwake(awake);
    else throw await fallAsleep(deps, capsule, { from, reason }, error);
  }
  if (objectKey) leftovers.nudge();
  return { record: (tx) => recordTrace(tx, id, trace.finish('resume')) };
}

function hasWoken(capsule: Capsule | undefined, generation: number): boolean {
  return capsule !== undefined && (AWAKE.includes(capsule.status) || capsule.generation > generation);
}

/** A capsule is hibernated a moment before its host's copy is free; what is being freed must not be woken. */
async function letHibernationEnd({ db, runner }: LifecycleDeps, id: string, signal: AbortSignal): Promise<void> {
  const hibernation = await findRunning(db, id, 'capsule.hibernate');
  if (!hibernation) return;
  await runner()
    .wait(hibernation.id, signal)
    .catch(() => signal.throwIfAborted());
}

/** A capsule that could not be resumed sleeps on. @returns what its caller hears */
async function fallAsleep(
  { db }: LifecycleDeps,
  { id }: Capsule,
  before: { from: 'paused' | 'hibernated' | 'error'; reason: string | null },
  error: unknown,
): Promise<unknown> {
  const isResuming = ({ status }: Capsule) => status === 'resuming';
  const code = error instanceof WrennError ? error.code : undefined;
  if (code === 'capsule_not_found' && before.from !== 'hibernated') {
    const problem = 'its host no longer has it';
    const lost = new WrennError('snapshot_damaged', { id, problem }, { cause: error });
    await transitionWhen(db, id, isResuming, 'error', { statusReason: problem, snapshotProblem: lost.message });
    return lost;
  }
  const isBad = code === 'snapshot_damaged' || code === 'snapshot_incompatible';
  await transitionWhen(db, id, isResuming, before.from, {
    statusReason: before.reason,
    ...(isBad ? { snapshotProblem: publicReason(error) } : {}),
  });
  return error;
}

export async function hibernateVm(
  deps: LifecycleDeps,
  { capsuleId: id, args }: Operation,
  { signal, step }: OperationContext,
): Promise<OperationOutcome> {
  const { db, hostOf, leftovers, log } = deps;
  const { generation, objectKey, hostId } = hibernateArgsSchema.parse(args);
  const found = await findCapsule(db, id);
  // Else an earlier run of this operation has come so far.
  if (found?.objectKey !== objectKey) {
    try {
      await moveToStore(deps, id, { generation, objectKey }, { signal, step });
    } catch (error) {
      // The next run goes on with the same key.
      if (isRunAgain(error, signal)) throw error;
      if (await giveUpCopy(db, id, { objectKey, version: found?.version, error })) {
        leftovers.nudge();
        throw error;
      }
    }
  }
  step("free the host's copy");
  await hostOf(hostId)
    .forgetVm(id, generation, signal)
    .catch((err: unknown) => {
      signal.throwIfAborted();
      log.warn({ err, capsule: id }, "the host's copy is freed by reconciliation");
    });
  return {};
}

async function moveToStore(
  { db, hostOf }: LifecycleDeps,
  id: string,
  { generation, objectKey }: { generation: number; objectKey: string },
  { signal, step }: OperationContext,
): Promise<void> {
  const capsule = await requireIn(db, id, 'hibernating');
  const host = hostOf(capsule.hostId);
  step('copy to the object store');
  try {
    await askHost(host, { signal }, () => host.hibernateVm(id, generation, objectKey, signal));
    await transition(db, capsule, 'hibernated', { objectKey, snapshotBytes: null, snapshotProblem: null });
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof LostRaceError) return await refuseMoved(db, id, 'hibernating');
    throw error;
  }
}

/**
 * Has the copy of a failed hibernation removed, and the capsule sleep on, in one transaction: whoever hibernates it with
 * this key is before it or comes too late.
 *
 * @param version of the capsule when this run began
 * @returns false when another run of the operation has hibernated it: the copy is all that there is of it
 */
function giveUpCopy(
  db: Db,
  id: string,
  { objectKey, version, error }: { objectKey: string; version: number | undefined; error: unknown },
): Promise<boolean> {
  return db.transaction(async (tx) => {
    const capsule = await lockCapsule(tx, id);
    if (capsule?.objectKey === objectKey) return false;
    if (capsule?.status === 'hibernating' && capsule.version === version) {
      const damaged = error instanceof WrennError && error.code === 'snapshot_damaged';
      await transition(tx, capsule, 'paused', damaged ? { snapshotProblem: error.message } : {});
    }
    await doomObjects(tx, [objectKey]);
    return true;
  });
}
