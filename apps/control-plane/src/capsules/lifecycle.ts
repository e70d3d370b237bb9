import { setTimeout as delay } from 'node:timers/promises';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { WrennError } from '@wrenn/protocol/errors';
import type { Vm } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import type { Capsule } from '../database/schema.ts';
import type { GuestPool } from '../guest/guest-pool.ts';
import type { Host } from '../hosts/host.ts';
import type { OperationHandlers, OperationRunner } from '../operations/operation-runner.ts';
import { findCapsule } from './capsule-store.ts';
import { LostRaceError, type TransitionChanges, transition, transitionWhen } from './transition.ts';

/** The address that every guest has itself; see DESIGN of the host's network. */
const GUEST_IP = '169.254.0.21';
/** How long a create waits for a host that went away meanwhile, and comes back when its agent was restarted. */
const HOST_RETURN_MS = 120_000;
const RETRY_MS = 200;
/** Console of a microVM that ended by itself, kept with its capsule. */
export const CONSOLE_TAIL_BYTES = 65_536;

export interface LifecycleDeps {
  readonly db: Db;
  readonly hostOf: (hostId: string) => Host;
  readonly guests: GuestPool;
  /** Known only after the handlers are: each handler may stop the others' work. */
  readonly runner: () => OperationRunner;
  readonly log: Logger;
}

/** What is done to make a capsule run and to end it. Each can be repeated from its beginning after a crash. */
export function lifecycleHandlers(deps: LifecycleDeps): OperationHandlers {
  return {
    'capsule.create': ({ capsuleId }, context) => createVm(deps, capsuleId, context),
    'capsule.destroy': ({ capsuleId }, context) => destroyVm(deps, capsuleId, context),
    'capsule.pause': notYet,
    'capsule.resume': notYet,
    'capsule.fork': notYet,
    'capsule.snapshot': notYet,
    'capsule.hibernate': notYet,
  };
}

async function notYet(): Promise<never> {
  throw new WrennError('internal_error');
}

type Context = Parameters<OperationHandlers['capsule.create']>[1];

async function createVm(deps: LifecycleDeps, id: string, { signal, step }: Context): Promise<void> {
  const { db, hostOf } = deps;
  const capsule = await beginStart(db, id);
  const host = hostOf(capsule.hostId);
  try {
    await step('start microVM');
    const vm = await startOnHost(host, capsule, signal);
    await step('record');
    await transition(db, capsule, 'running', { ...vmChanges(vm), startedAt: startedAt(vm), lastActiveAt: new Date() });
  } catch (error) {
    signal.throwIfAborted();
    // Somebody ended it meanwhile, and that ending takes the microVM with it.
    if (error instanceof LostRaceError) throw await notStarting(db, id);
    const reason = error instanceof WrennError ? error.message : new WrennError('internal_error').message;
    await transitionWhen(db, id, ({ status }) => status === 'starting', 'error', { statusReason: reason });
    // Reconciliation removes what this leaves when the host does not answer.
    await host
      .destroyVm(id, signal)
      .catch((err: unknown) => deps.log.warn({ err, capsule: id }, 'left to reconciliation'));
    throw error;
  }
}

/** The capsule in `starting`; an earlier run of the same operation may have brought it there. */
async function beginStart(db: Db, id: string): Promise<Capsule> {
  const moved = await transitionWhen(db, id, ({ status }) => status === 'pending', 'starting');
  if (moved) return moved;
  const capsule = await findCapsule(db, id);
  if (capsule?.status === 'starting') return capsule;
  throw await notStarting(db, id);
}

async function notStarting(db: Db, id: string): Promise<WrennError> {
  const capsule = await findCapsule(db, id);
  if (!capsule) return new WrennError('capsule_not_found', { id });
  return new WrennError('invalid_state', { id, status: capsule.status, needed: 'starting' });
}

/** Asks again after a host came back: its agent may have been restarted, and CreateVm can be repeated. */
async function startOnHost(host: Host, capsule: Capsule, signal: AbortSignal): Promise<Vm> {
  const deadline = AbortSignal.timeout(HOST_RETURN_MS);
  for (;;) {
    try {
      return await host.createVm(
        {
          id: capsule.id,
          template: capsule.template,
          vcpus: capsule.vcpus,
          memoryMb: capsule.memoryMb,
          diskMb: capsule.diskRequestMb,
          init: { accessToken: capsule.accessToken, envs: capsule.envs, hostname: capsule.id },
        },
        signal,
      );
    } catch (error) {
      const lost = error instanceof WrennError && error.code === 'host_unavailable';
      if (!lost || deadline.aborted) throw error;
      await nextConnection(host, AbortSignal.any([signal, deadline])).catch(() => {
        signal.throwIfAborted();
        throw error;
      });
    }
  }
}

async function destroyVm(deps: LifecycleDeps, id: string, { signal, step }: Context): Promise<void> {
  const { db, hostOf, guests } = deps;
  const capsule = await transitionWhen(
    db,
    id,
    ({ status }) => status !== 'stopping' && status !== 'stopped',
    'stopping',
  );
  const hostId = (capsule ?? (await findCapsule(db, id)))?.hostId;
  if (hostId === undefined) return;
  guests.evict(id);
  await step('stop its start');
  const reason = new WrennError('invalid_state', { id, status: 'stopping', needed: 'starting' });
  await deps.runner().cancel(id, 'capsule.create', reason);
  await step('end microVM');
  await endOnHost(hostOf(hostId), id, signal);
  await step('record');
  await transitionWhen(db, id, ({ status }) => status === 'stopping', 'stopped');
}

/** Waits for a silent host as long as it takes: only the host can say that the microVM is gone. */
async function endOnHost(host: Host, id: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    try {
      return await host.destroyVm(id, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof WrennError) || error.code !== 'host_unavailable') throw error;
      await nextConnection(host, signal);
    }
  }
}

/** A call fails a moment before the host counts as offline, hence the pause. */
async function nextConnection(host: Host, signal: AbortSignal): Promise<void> {
  await delay(RETRY_MS, undefined, { signal });
  await host.whenOnline(signal);
}

/** What the host knows about a running microVM. */
export function vmChanges(vm: Vm): TransitionChanges {
  return { guestIp: GUEST_IP, hostIp: vm.hostIp, diskMb: vm.diskMb, versions: { ...vm.versions } };
}

function startedAt(vm: Vm): Date {
  return vm.startedAt ? timestampDate(vm.startedAt) : new Date();
}
