import { randomBytes } from 'node:crypto';
import { WrennError } from '@wrenn/protocol/errors';
import { isId, newId } from '@wrenn/protocol/ids';
import { CAPSULE_STATUSES, type CapsuleStatus, type CreateCapsuleRequest } from '@wrenn/protocol/rest/capsule';
import { z } from 'zod';
import type { Actor } from '../access/actor.ts';
import type { Db } from '../database/database.ts';
import type { Capsule, Operation, Snapshot } from '../database/schema.ts';
import type { PlannedCapsules } from '../extensions/extension.ts';
import { acrossReconnect } from '../hosts/across-reconnect.ts';
import type { Host } from '../hosts/host.ts';
import { hashRequest, onceForKey } from '../operations/idempotency.ts';
import type { OperationRunner } from '../operations/operation-runner.ts';
import { findRunning, insertOperation } from '../operations/operation-store.ts';
import { type PlacementDeps, placeCapsule } from '../placement/place-capsule.ts';
import { findUsableSnapshot } from '../snapshots/snapshot-store.ts';
import { checkBudget } from '../usage/check-budget.ts';
import { checkPool, shareOf } from '../usage/pools.ts';
import { publishCreated } from './capsule-events.ts';
import { findCapsule, findTeamCapsule, insertCapsule, lockCapsule } from './capsule-store.ts';
import type { Leftovers } from './leftovers.ts';
import { nowMs, type traceArgsSchema } from './trace.ts';
import { transitionWhen } from './transition.ts';

/** Who asks. */
export interface Caller {
  readonly teamId: string;
  /** Id of the API key or user, or `system`. */
  readonly actor: string;
  /** The same as the audit log names it; undefined: the platform itself. */
  readonly askedBy?: Actor;
}

export interface CapsulesDeps {
  readonly db: Db;
  readonly hosts: () => readonly Host[];
  readonly placement: PlacementDeps;
  readonly runner: OperationRunner;
  /** The number under which this control plane owns operations. */
  readonly owner: number;
  readonly leftovers: Leftovers;
  /** Whether usage has a cost, without which budgets have no effect. */
  readonly hasPrices: boolean;
  /** Throws where capsules must not be made. */
  readonly beforeCapsules?: (planned: PlannedCapsules) => Promise<void>;
}

export function hostById({ hosts }: CapsulesDeps, id: string): Host | undefined {
  return hosts().find((host) => host.id === id);
}

/**
 * Whether what the platform does of its own accord is still to be done. Nothing of the capsule can change between this
 * and the move.
 */
export type IsDue = (tx: Db, now: Capsule) => boolean | Promise<boolean>;

/** What a destroy needs to know: the state that the capsule was in decides who must be asked. */
export const destroyArgsSchema = z.object({ from: z.enum(CAPSULE_STATUSES) });

const DEFAULT_VCPUS = 1;
const DEFAULT_MEMORY_MB = 512;

/**
 * Creates a capsule and waits until its guest has confirmed. When the caller's signal comes first the capsule is made
 * nevertheless.
 *
 * @param idempotencyKey a repeated request with the same key answers the capsule of the first
 * @param receivedAtMs when the request came, in milliseconds since the epoch
 */
export async function createCapsule(
  deps: CapsulesDeps,
  caller: Caller,
  request: CreateCapsuleRequest,
  idempotencyKey: string | undefined,
  signal: AbortSignal,
  receivedAtMs = nowMs(),
): Promise<Capsule> {
  const { db } = deps;
  const { teamId } = caller;
  const requestHash = hashRequest(request);
  const identity = { teamId, kind: 'capsule.create', key: idempotencyKey, requestHash } as const;
  const operation = await onceForKey(db, identity, () =>
    beginCreate(deps, caller, request, { idempotencyKey, requestHash, receivedAtMs }),
  );
  await deps.runner.wait(operation.id, signal);
  return requireCapsule(db, teamId, operation.capsuleId);
}

async function beginCreate(
  { db, hosts, placement, runner, owner, hasPrices, beforeCapsules }: CapsulesDeps,
  caller: Caller,
  request: CreateCapsuleRequest,
  identity: { idempotencyKey: string | undefined; requestHash: string; receivedAtMs: number },
): Promise<Operation> {
  const { receivedAtMs, ...key } = identity;
  const snapshot = await findUsableSnapshot(db, caller.teamId, request.template);
  const plan = snapshot ? planFromSnapshot(snapshot, request) : planFromTemplate(request);
  const { template, vcpus, memoryMb } = plan;
  const { teamId, actor } = caller;
  await beforeCapsules?.({
    ...{ teamId, actor, by: 'create', count: 1, labels: request.metadata },
    ...{ template, vcpus, memoryMb },
  });
  const insert = async (tx: Db) => {
    if (hasPrices) await checkBudget(tx, teamId);
    const hostId = await placeCapsule(tx, placement, {
      ...{ teamId, vcpus, memoryMb, diskMb: plan.diskRequestMb, hostTags: request.host_tags },
      ...(snapshot ? { snapshot } : { template }),
    });
    const args: z.output<typeof traceArgsSchema> = { receivedAtMs, placedAtMs: nowMs() };
    const capsule = await insertCapsule(tx, {
      ...plan,
      ...lifetimeOf(request, new Date()),
      id: newId('cl'),
      teamId: caller.teamId,
      hostId,
      hostTags: request.host_tags,
      labels: request.metadata,
      versions: {},
      accessToken: newAccessToken(),
    });
    await checkPool(tx, teamId, shareOf(capsule));
    await publishCreated(tx, capsule, caller.actor);
    return insertOperation(tx, { ...caller, ...key, capsuleId: capsule.id, kind: 'capsule.create', args, owner });
  };
  const operation = await acrossReconnect(hosts, () => db.transaction(insert));
  runner.run(operation);
  return operation;
}

/** What a guest demands of everybody who talks to it. */
export function newAccessToken(): string {
  return randomBytes(32).toString('base64url');
}

function planFromTemplate({ template, vcpus, memory_mb, disk_mb, envs }: CreateCapsuleRequest) {
  return {
    template,
    vcpus: vcpus ?? DEFAULT_VCPUS,
    memoryMb: memory_mb ?? DEFAULT_MEMORY_MB,
    diskRequestMb: disk_mb ?? 0,
    envs,
  };
}

/** @throws WrennError `invalid_shape` when the request wants another shape or disk than the snapshot has */
function planFromSnapshot(snapshot: Snapshot, request: CreateCapsuleRequest) {
  const { template, vcpus, memoryMb, diskMb, name } = snapshot;
  const wanted = { vcpus: request.vcpus ?? vcpus, memoryMb: request.memory_mb ?? memoryMb };
  if (wanted.vcpus !== vcpus || wanted.memoryMb !== memoryMb || (request.disk_mb || diskMb) !== diskMb) {
    throw new WrennError('invalid_shape', {
      vcpus: wanted.vcpus,
      memory_mb: wanted.memoryMb,
      problem: `the snapshot ${name} has ${vcpus} vCPUs, ${memoryMb} MiB of memory and a disk of ${diskMb} MiB`,
    });
  }
  const envs = { ...snapshot.envs, ...request.envs };
  return { template, vcpus, memoryMb, diskRequestMb: diskMb, envs, snapshotId: snapshot.id };
}

/** When the capsule goes to sleep, and what then, from fields of a request. */
function lifetimeOf(request: CreateCapsuleRequest, now: Date) {
  const { timeout_sec: timeoutSec, on_timeout: onTimeout, auto_resume: autoResume, deadline_sec } = request;
  const deadlineAt = deadline_sec ? new Date(now.getTime() + deadline_sec * 1000) : null;
  return { timeoutSec, onTimeout, autoResume, deadlineAt };
}

/**
 * Ends a capsule. Once this has begun nothing stops it, whatever becomes of the caller.
 *
 * @returns the capsule as it is when the signal came before its end: `stopping`
 */
export async function destroyCapsule(
  deps: CapsulesDeps,
  caller: Caller,
  id: string,
  signal: AbortSignal,
): Promise<Capsule> {
  const { db, runner } = deps;
  const capsule = await requireCapsule(db, caller.teamId, id);
  if (capsule.status === 'stopped') return capsule;
  const operation = await beginDestroy(deps, caller, id);
  try {
    if (operation) await runner.wait(operation.id, signal);
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  return requireCapsule(db, caller.teamId, id);
}

async function beginDestroy(
  { db, runner, owner }: CapsulesDeps,
  caller: Caller,
  id: string,
  isDue?: IsDue,
): Promise<Operation | undefined> {
  const operation = await db.transaction(async (tx) => {
    const locked = isDue && (await lockCapsule(tx, id));
    if (isDue && !(locked && (await isDue(tx, locked)))) return undefined;
    let from: CapsuleStatus = 'stopping';
    const isUp = ({ status }: Capsule) => {
      from = status;
      return status !== 'stopping' && status !== 'stopped';
    };
    const moved = await transitionWhen(tx, id, isUp, 'stopping');
    // An earlier ending that failed is tried again; one that goes on is waited for.
    if (!moved && !(await isStuckStopping(tx, id))) return undefined;
    const args: z.output<typeof destroyArgsSchema> = { from };
    return insertOperation(tx, { ...caller, capsuleId: id, kind: 'capsule.destroy', args, owner });
  });
  if (!operation) return findRunning(db, id, 'capsule.destroy');
  runner.run(operation);
  return operation;
}

async function isStuckStopping(db: Db, id: string): Promise<boolean> {
  const capsule = await findCapsule(db, id);
  return capsule?.status === 'stopping' && (await findRunning(db, id, 'capsule.destroy')) === undefined;
}

/** @throws WrennError `capsule_not_found` also for a capsule of another team */
export async function requireCapsule(db: Db, teamId: string, id: string): Promise<Capsule> {
  const capsule = isId('cl', id) ? await findTeamCapsule(db, teamId, id) : undefined;
  if (!capsule) throw new WrennError('capsule_not_found', { id });
  return capsule;
}

/** @throws WrennError `capsule_not_found`, `host_unavailable` or `invalid_state` */
export async function requireRunning(db: Db, teamId: string, id: string): Promise<Capsule> {
  const capsule = await requireCapsule(db, teamId, id);
  if (capsule.status === 'running') return capsule;
  if (capsule.status === 'missing') throw new WrennError('host_unavailable');
  const status = capsule.statusReason ? `${capsule.status} (${capsule.statusReason})` : capsule.status;
  throw new WrennError('invalid_state', { id, status, needed: 'running' });
}

/** Ends a capsule on the platform's own account, without waiting. */
export async function destroyAsSystem(deps: CapsulesDeps, { id }: Pick<Capsule, 'id'>, isDue?: IsDue): Promise<void> {
  const capsule = await findCapsule(deps.db, id);
  if (capsule) await beginDestroy(deps, { teamId: capsule.teamId, actor: 'system' }, id, isDue);
}
