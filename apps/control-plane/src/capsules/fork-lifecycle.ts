import { WrennError } from '@wrenn/protocol/errors';
import type { ForkVmResponse, Vm } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { CapsuleTrace } from '@wrenn/protocol/rest/capsule';
import type { Db } from '../database/database.ts';
import type { Capsule, Operation } from '../database/schema.ts';
import { askHost } from '../hosts/ask-host.ts';
import type { Host } from '../hosts/host.ts';
import { isRunAgain, type OperationContext } from '../operations/operation-runner.ts';
import type { OperationOutcome } from '../operations/operation-store.ts';
import { publishForked } from './capsule-events.ts';
import { findCapsule, findCapsules, lockCapsule } from './capsule-store.ts';
import { forkArgsSchema } from './fork.ts';
import { hasStarted, type LifecycleDeps, publicReason, requireIn } from './lifecycle-deps.ts';
import { nowMs, recordTrace, StartTrace } from './trace.ts';
import { transition, transitionWhen } from './transition.ts';
import { followHost, guestInit, startChanges } from './vm-facts.ts';

/** How long the removal of children waits for its host before it is left to reconciliation. */
const REMOVE_MS = 30_000;

/** All children or none. The source is forking until its host has said what became of it. */
export async function forkVm(
  deps: LifecycleDeps,
  { capsuleId: id, args }: Operation,
  { signal, step }: OperationContext,
): Promise<OperationOutcome> {
  const { db, hostOf } = deps;
  const { children: ids, ...times } = forkArgsSchema.parse(args);
  const before = await findCapsules(db, ids);
  // An earlier run of this operation came to its end, but did not live to say so.
  if (before.some(hasStarted)) return {};
  const trace = new StartTrace(times);
  let host: Host | undefined;
  try {
    const source = await requireIn(db, id, 'forking');
    host = hostOf(source.hostId);
    for (const { id: child } of before) await transitionWhen(db, child, isPending, 'starting');
    step('fork microVM');
    const beginMs = nowMs();
    const answer = await trace.measureHost(
      () => forkOnHost(deps, source, before, signal),
      (forked) => forked.trace,
    );
    const ended = await trace.measure('record', () => record(deps, source, answer.vms));
    await removeAll(deps, host, ended);
    const traces = new Map<string, CapsuleTrace>(
      answer.vms.map((vm) => {
        const own = trace.copy();
        own.addHostSteps(vm.trace, beginMs);
        return [vm.id, own.finish('fork')];
      }),
    );
    return {
      record: async (tx) => {
        for (const [child, timeline] of traces) await recordTrace(tx, child, timeline);
      },
    };
  } catch (error) {
    // The next run asks for the same children.
    if (isRunAgain(error, signal)) throw error;
    if (!(await failChildren(db, id, ids, publicReason(error)))) return {};
    if (host) await removeAll(deps, host, ids);
    if (host && !signal.aborted) await settleSource(deps, host, id, error, signal);
    throw error;
  }
}

const isPending = ({ status }: Capsule) => status === 'pending';
const isYoung = ({ status }: Capsule) => status === 'pending' || status === 'starting';

async function forkOnHost(
  { hostOf }: LifecycleDeps,
  source: Capsule,
  children: readonly Capsule[],
  signal: AbortSignal,
): Promise<ForkVmResponse> {
  const host = hostOf(source.hostId);
  const asked = children.map((child) => ({ id: child.id, init: guestInit(child) }));
  const answer = await askHost(host, { signal }, () => host.forkVm(source.id, asked, signal));
  const missing = children.filter(({ id }) => !answer.vms.some((vm) => vm.id === id));
  if (missing.length > 0) throw new WrennError('internal_error', {}, { cause: new Error('fork without all children') });
  return answer;
}

/** @returns ids of children that were ended meanwhile: their microVMs are to go */
function record({ db }: LifecycleDeps, source: Capsule, vms: readonly Vm[]): Promise<string[]> {
  return db.transaction(async (tx) => {
    const ended: string[] = [];
    const awake = await transition(tx, source, 'running');
    for (const vm of vms) {
      const isStarting = ({ status }: Capsule) => status === 'starting';
      if (!(await transitionWhen(tx, vm.id, isStarting, 'running', startChanges(vm)))) ended.push(vm.id);
    }
    await publishForked(
      tx,
      awake,
      vms.map(({ id }) => id),
    );
    return ended;
  });
}

/**
 * Either this or `record`, whichever run of the operation is first: both hold the source.
 *
 * @returns false when the children have been recorded, so that what their host has of them is theirs
 */
function failChildren(db: Db, sourceId: string, ids: readonly string[], statusReason: string): Promise<boolean> {
  return db.transaction(async (tx) => {
    await lockCapsule(tx, sourceId);
    if ((await findCapsules(tx, ids)).some(hasStarted)) return false;
    for (const id of ids) await transitionWhen(tx, id, isYoung, 'error', { statusReason });
    return true;
  });
}

/** Also when the operation was stopped: nobody else knows of these. What fails is left to reconciliation. */
async function removeAll({ log }: LifecycleDeps, host: Host, ids: readonly string[]): Promise<void> {
  const signal = AbortSignal.timeout(REMOVE_MS);
  const removals = ids.map((id) =>
    host.destroyVm(id, signal).catch((err: unknown) => log.warn({ err, capsule: id }, 'left to reconciliation')),
  );
  await Promise.all(removals);
}

async function settleSource(
  { db, guests }: LifecycleDeps,
  host: Host,
  id: string,
  error: unknown,
  signal: AbortSignal,
): Promise<void> {
  const source = await findCapsule(db, id);
  if (source?.status !== 'forking') return;
  const vm = await askHost(host, { signal }, () => host.getVm(id, signal));
  const now = await followHost(db, source, vm, publicReason(error));
  if (now?.status !== 'running') guests.evict(id);
}
