import { createHash, randomBytes } from 'node:crypto';
import { WrennError } from '@wrenn/protocol/errors';
import { isId, newId } from '@wrenn/protocol/ids';
import { CAPSULE_STATUSES, type CapsuleStatus, type CreateCapsuleRequest } from '@wrenn/protocol/rest/capsule';
import { type Db, isUniqueViolation } from '../database/database.ts';
import type { Capsule, Operation } from '../database/schema.ts';
import { chooseHost } from '../hosts/choose-host.ts';
import type { Host } from '../hosts/host.ts';
import type { OperationRunner } from '../operations/operation-runner.ts';
import { findByIdempotencyKey, findRunning, insertOperation } from '../operations/operation-store.ts';
import { findCapsule, findTeamCapsule, insertCapsule, listTeamCapsules } from './capsule-store.ts';
import { transitionWhen } from './transition.ts';

/** Who asks. */
export interface Caller {
  readonly teamId: string;
  /** Id of the API key, or `system`. */
  readonly actor: string;
}

export interface CapsulesDeps {
  readonly db: Db;
  readonly hosts: () => readonly Host[];
  readonly runner: OperationRunner;
  /** The number under which this control plane owns operations. */
  readonly owner: number;
}

/** States that a list leaves out unless it is asked for them. */
const ENDED: CapsuleStatus[] = ['stopped', 'error'];

/**
 * Creates a capsule and waits until its guest has confirmed. When the caller's signal comes first the capsule is made
 * nevertheless.
 *
 * @param idempotencyKey a repeated request with the same key answers the capsule of the first
 */
export async function createCapsule(
  deps: CapsulesDeps,
  caller: Caller,
  request: CreateCapsuleRequest,
  idempotencyKey: string | undefined,
  signal: AbortSignal,
): Promise<Capsule> {
  const operation = await beginCreate(deps, caller, request, idempotencyKey);
  await deps.runner.wait(operation.id, signal);
  return requireCapsule(deps.db, caller.teamId, operation.capsuleId);
}

async function beginCreate(
  deps: CapsulesDeps,
  caller: Caller,
  request: CreateCapsuleRequest,
  idempotencyKey: string | undefined,
): Promise<Operation> {
  const { db, hosts, runner, owner } = deps;
  const requestHash = createHash('sha256').update(JSON.stringify(request)).digest('hex');
  const earlier = idempotencyKey && (await findEarlier(db, caller, idempotencyKey, requestHash));
  if (earlier) return earlier;

  const { template, vcpus = 1, memory_mb: memoryMb = 512, disk_mb = 0, envs, metadata } = request;
  const host = chooseHost(hosts(), { template, vcpus, memoryMb });
  try {
    const operation = await db.transaction(async (tx) => {
      const capsule = await insertCapsule(tx, {
        id: newId('cl'),
        teamId: caller.teamId,
        hostId: host.id,
        template,
        vcpus,
        memoryMb,
        diskRequestMb: disk_mb,
        ...lifetimeOf(request, new Date()),
        envs,
        labels: metadata,
        versions: {},
        accessToken: randomBytes(32).toString('base64url'),
      });
      return insertOperation(tx, {
        ...caller,
        capsuleId: capsule.id,
        kind: 'capsule.create',
        idempotencyKey,
        requestHash,
        owner,
      });
    });
    runner.run(operation);
    return operation;
  } catch (error) {
    if (!idempotencyKey || !isUniqueViolation(error)) throw error;
    const winner = await findEarlier(db, caller, idempotencyKey, requestHash);
    if (!winner) throw error;
    return winner;
  }
}

/** When the capsule goes to sleep, and what then, from fields of a request. */
function lifetimeOf(request: CreateCapsuleRequest, now: Date) {
  const { timeout_sec: timeoutSec, on_timeout: onTimeout, auto_resume: autoResume, deadline_sec } = request;
  const deadlineAt = deadline_sec ? new Date(now.getTime() + deadline_sec * 1000) : null;
  return { timeoutSec, onTimeout, autoResume, deadlineAt };
}

async function findEarlier(
  db: Db,
  { teamId }: Caller,
  key: string,
  requestHash: string,
): Promise<Operation | undefined> {
  const operation = await findByIdempotencyKey(db, teamId, 'capsule.create', key);
  if (operation && operation.requestHash !== requestHash) {
    throw new WrennError('conflict', { what: `Another request with the idempotency key ${key}` });
  }
  return operation;
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
): Promise<Operation | undefined> {
  const operation = await db.transaction(async (tx) => {
    const isUp = ({ status }: Capsule) => status !== 'stopping' && status !== 'stopped';
    const moved = await transitionWhen(tx, id, isUp, 'stopping');
    // An earlier ending that failed is tried again; one that goes on is waited for.
    if (!moved && !(await isStuckStopping(tx, id))) return undefined;
    return insertOperation(tx, { ...caller, capsuleId: id, kind: 'capsule.destroy', owner });
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

/** @param status states with commas between them, or `all`; undefined: those that have not ended */
export async function listCapsules(db: Db, teamId: string, status: string | undefined): Promise<Capsule[]> {
  if (status === undefined) return listTeamCapsules(db, teamId, { allBut: ENDED });
  if (status === 'all') return listTeamCapsules(db, teamId, { allBut: [] });
  const wanted = status.split(',').map((name) => {
    const known = CAPSULE_STATUSES.find((candidate) => candidate === name.trim());
    if (!known) throw new WrennError('invalid_request', { problem: `status "${name}" is not a state of capsules` });
    return known;
  });
  return listTeamCapsules(db, teamId, { only: wanted });
}

/** Ends a capsule on the platform's own account, without waiting. */
export async function destroyAsSystem(deps: CapsulesDeps, { id }: Pick<Capsule, 'id'>): Promise<void> {
  const capsule = await findCapsule(deps.db, id);
  if (capsule) await beginDestroy(deps, { teamId: capsule.teamId, actor: 'system' }, id);
}
