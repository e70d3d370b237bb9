import { randomBytes } from 'node:crypto';
import { WrennError } from '@wrenn/protocol/errors';
import type { CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import { z } from 'zod';
import type { Db } from '../database/database.ts';
import type { Capsule, Operation } from '../database/schema.ts';
import { acrossReconnect } from '../hosts/across-reconnect.ts';
import { placeCapsule, reserveOn } from '../placement/place-capsule.ts';
import { roomToWake } from '../placement/room-to-wake.ts';
import { checkBudget } from '../usage/check-budget.ts';
import { checkPool, shareToWake } from '../usage/pools.ts';
import { beginVerb } from './begin-verb.ts';
import { findCapsule } from './capsule-store.ts';
import { type Caller, type CapsulesDeps, hostById, type IsDue, requireCapsule } from './capsules.ts';
import { nowMs, traceArgsSchema } from './trace.ts';

/** What a pause needs to know. The number is fixed with the operation, so that a repeated run asks for the same one. */
export const pauseArgsSchema = z.object({ generation: z.int() });

export const resumeArgsSchema = traceArgsSchema.extend({
  generation: z.int(),
  memory: z.enum(['keep', 'discard']),
  /** Where the capsule goes back to when it cannot be resumed, and why it was there. */
  from: z.enum(['paused', 'hibernated', 'error']),
  reason: z.string().nullable(),
  objectKey: z.string().nullable(),
});

export const hibernateArgsSchema = z.object({
  generation: z.int(),
  objectKey: z.string(),
  /** The host whose copy is freed, also when the capsule has been woken on another one meanwhile. */
  hostId: z.string(),
});

export interface ResumeOptions {
  readonly memory: 'keep' | 'discard';
  readonly idempotencyKey?: string | undefined;
  /** When the request came, in milliseconds since the epoch. */
  readonly receivedAtMs?: number;
}

/**
 * Puts a running capsule to sleep and waits until it does. When the caller's signal comes first it goes on.
 *
 * @throws WrennError `invalid_state` when it does not run; what its host refuses with, and then it runs on
 */
export async function pauseCapsule(
  deps: CapsulesDeps,
  caller: Caller,
  id: string,
  idempotencyKey: string | undefined,
  signal: AbortSignal,
): Promise<Capsule> {
  const operation = await beginPause(deps, caller, id, idempotencyKey);
  await deps.runner.wait(operation.id, signal);
  return requireCapsule(deps.db, caller.teamId, id);
}

/** Puts a capsule to sleep on the platform's own account, without waiting. Does nothing to one that does not run. */
export async function pauseAsSystem(deps: CapsulesDeps, { id }: Pick<Capsule, 'id'>, isDue?: IsDue): Promise<void> {
  const capsule = await findCapsule(deps.db, id);
  if (capsule?.status !== 'running') return;
  try {
    await beginPause(deps, { teamId: capsule.teamId, actor: 'system' }, id, undefined, isDue);
  } catch (error) {
    if (!isInvalidState(error)) throw error;
  }
}

function beginPause(
  deps: CapsulesDeps,
  caller: Caller,
  id: string,
  key: string | undefined,
  isDue?: IsDue,
): Promise<Operation> {
  const prepare = async (tx: Db, capsule: Capsule) => {
    if (isDue && !(await isDue(tx, capsule))) throw refuse(id, capsule.status, 'due');
    return {};
  };
  return beginVerb(deps, caller, {
    id,
    kind: 'capsule.pause',
    key,
    request: {},
    when: ({ status }) => status === 'running',
    needed: 'running',
    to: 'pausing',
    ...(isDue ? { prepare } : {}),
    args: ({ generation }): z.output<typeof pauseArgsSchema> => ({ generation: generation + 1 }),
  });
}

/**
 * Wakes a sleeping capsule, or one that failed after it had slept, and waits until its guest has confirmed. When the
 * caller's signal comes first it goes on.
 *
 * @throws WrennError `invalid_state`, `host_unavailable`, `pool_exhausted`, `budget_exceeded`; `snapshot_damaged` and
 *   `snapshot_incompatible` when its memory cannot be restored: it sleeps on, and can be resumed without its memory
 */
export async function resumeCapsule(
  deps: CapsulesDeps,
  caller: Caller,
  id: string,
  options: ResumeOptions,
  signal: AbortSignal,
): Promise<Capsule> {
  const operation = await acrossReconnect(deps.hosts, () => beginResume(deps, caller, id, options));
  await deps.runner.wait(operation.id, signal);
  return requireCapsule(deps.db, caller.teamId, id);
}

async function beginResume(
  deps: CapsulesDeps,
  caller: Caller,
  id: string,
  { memory, idempotencyKey, receivedAtMs = nowMs() }: ResumeOptions,
): Promise<Operation> {
  return beginVerb(deps, caller, {
    id,
    kind: 'capsule.resume',
    key: idempotencyKey,
    request: { memory },
    when: canResume,
    needed: 'paused or hibernated',
    to: 'resuming',
    prepare: async (tx, capsule) => {
      if (deps.hasPrices) await checkBudget(tx, capsule.teamId);
      return { hostId: await hostToWakeOn(tx, deps, capsule) };
    },
    also: (tx, capsule) => checkPool(tx, capsule.teamId, shareToWake(capsule)),
    args: (capsule): z.output<typeof resumeArgsSchema> => ({
      receivedAtMs,
      placedAtMs: nowMs(),
      generation: capsule.generation,
      memory,
      from: sleepingStatus(capsule.status),
      reason: capsule.statusReason,
      objectKey: capsule.objectKey,
    }),
  });
}

/** Whether a capsule has a state to go on from. */
function canResume({ status, generation }: Capsule): boolean {
  return status === 'paused' || status === 'hibernated' || (status === 'error' && generation > 0);
}

function sleepingStatus(status: CapsuleStatus): 'paused' | 'hibernated' | 'error' {
  return status === 'paused' || status === 'hibernated' ? status : 'error';
}

async function hostToWakeOn(tx: Db, deps: CapsulesDeps, capsule: Capsule): Promise<string> {
  const { status, hostId, teamId, vcpus, memoryMb, diskRequestMb, hostTags } = capsule;
  if (status === 'hibernated') {
    const diskMb = capsule.diskMb ?? diskRequestMb;
    return placeCapsule(tx, deps.placement, { teamId, vcpus, memoryMb, diskMb, hostTags, likeHostId: hostId });
  }
  if (!hostById(deps, hostId)?.online) throw new WrennError('host_unavailable');
  await reserveOn(tx, deps.placement, hostId, roomToWake(deps.placement.settings, capsule));
  return hostId;
}

/**
 * Moves a paused capsule into the object store and frees its host's copy. When the caller's signal comes first it goes
 * on.
 *
 * @throws WrennError `invalid_state`, `object_store_failed`; then it is paused as before
 */
export async function hibernateCapsule(
  deps: CapsulesDeps,
  caller: Caller,
  id: string,
  idempotencyKey: string | undefined,
  signal: AbortSignal,
): Promise<Capsule> {
  const operation = await beginVerb(deps, caller, {
    id,
    kind: 'capsule.hibernate',
    key: idempotencyKey,
    request: {},
    when: ({ status }) => status === 'paused',
    needed: 'paused',
    to: 'hibernating',
    // Never used twice, so that the removal of a failed copy cannot hit the next one.
    args: ({ generation, hostId }): z.output<typeof hibernateArgsSchema> => ({
      generation,
      hostId,
      objectKey: `capsules/${id}/${generation}-${randomBytes(4).toString('hex')}`,
    }),
  });
  await deps.runner.wait(operation.id, signal);
  return requireCapsule(deps.db, caller.teamId, id);
}

/** What VerifyVm found. */
export interface Verification {
  readonly generation: number;
  readonly files: readonly { readonly name: string; readonly sizeBytes: number; readonly problem: string | null }[];
}

/**
 * Has every file of a sleeping capsule read again and compared with its sum.
 *
 * @throws WrennError `invalid_state` unless its host has a generation of it that does not run; `host_unavailable`
 */
export async function verifyCapsule(
  deps: CapsulesDeps,
  caller: Caller,
  id: string,
  signal: AbortSignal,
): Promise<Verification> {
  const capsule = await requireCapsule(deps.db, caller.teamId, id);
  const sleeps = capsule.status === 'paused' || (capsule.status === 'error' && capsule.generation > 0);
  if (!sleeps) throw refuse(id, capsule.status, 'paused');
  const { generation, files } = await acrossReconnect(deps.hosts, async () => {
    const host = hostById(deps, capsule.hostId);
    if (!host?.online) throw new WrennError('host_unavailable');
    return host.verifyVm(id, signal);
  });
  return {
    generation,
    files: files.map(({ name, sizeBytes, problem }) => ({
      name,
      sizeBytes: Number(sizeBytes),
      problem: problem === '' ? null : problem,
    })),
  };
}

function refuse(id: string, status: string, needed: string): WrennError {
  return new WrennError('invalid_state', { id, status, needed });
}

function isInvalidState(error: unknown): boolean {
  return error instanceof WrennError && error.code === 'invalid_state';
}
