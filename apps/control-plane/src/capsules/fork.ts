import { newId } from '@wrenn/protocol/ids';
import type { ForkRequest } from '@wrenn/protocol/rest/sleep';
import { z } from 'zod';
import type { Db } from '../database/database.ts';
import type { Capsule } from '../database/schema.ts';
import { findOperation } from '../operations/operation-store.ts';
import { reserveOn } from '../placement/place-capsule.ts';
import { checkBudget } from '../usage/check-budget.ts';
import { checkPool, shareOf } from '../usage/pools.ts';
import { beginVerb } from './begin-verb.ts';
import { publishCreated } from './capsule-events.ts';
import { findCapsules, type InsertedCapsule, insertCapsule } from './capsule-store.ts';
import { type Caller, type CapsulesDeps, newAccessToken, requireCapsule } from './capsules.ts';
import { nowMs, traceArgsSchema } from './trace.ts';

export const forkArgsSchema = traceArgsSchema.extend({ children: z.array(z.string()) });

/**
 * Makes new capsules of a running one, which goes on, and waits until all of them run. They have its memory, disk,
 * environment and settings, and an access token each. When the caller's signal comes first it goes on.
 *
 * @returns the children: all that were asked for
 * @throws WrennError `invalid_state` when it does not run; `pool_exhausted`, `budget_exceeded`; what its host refuses with.
 *   Then there is no child
 */
export async function forkCapsule(
  deps: CapsulesDeps,
  caller: Caller,
  id: string,
  request: ForkRequest,
  idempotencyKey: string | undefined,
  signal: AbortSignal,
  receivedAtMs = nowMs(),
): Promise<Capsule[]> {
  const { db, runner } = deps;
  await askBefore(deps, caller, id, request);
  const children = Array.from({ length: request.count }, () => newId('cl'));
  const operation = await beginVerb(deps, caller, {
    id,
    kind: 'capsule.fork',
    key: idempotencyKey,
    request,
    when: ({ status }) => status === 'running',
    needed: 'running',
    to: 'forking',
    prepare: async (tx, { teamId, hostId, memoryMb, diskMb }) => {
      if (deps.hasPrices) await checkBudget(tx, teamId);
      const { count } = request;
      await reserveOn(tx, deps.placement, hostId, { memoryMb: count * memoryMb, diskMb: count * (diskMb ?? 0) });
      return {};
    },
    args: (): z.output<typeof forkArgsSchema> => ({ children, receivedAtMs, placedAtMs: nowMs() }),
    also: async (tx, source) => {
      for (const child of children) {
        const made = await insertChild(tx, child, source, request.metadata ?? source.labels);
        await publishCreated(tx, made, caller.actor);
      }
      const { vcpus, memoryMb, diskMb } = shareOf(source);
      const all = { vcpus: vcpus * request.count, memoryMb: memoryMb * request.count, diskMb: diskMb * request.count };
      await checkPool(tx, source.teamId, all);
    },
  });
  await runner.wait(operation.id, signal);
  const { args } = (await findOperation(db, operation.id)) ?? operation;
  return findCapsules(db, forkArgsSchema.parse(args).children);
}

async function askBefore(deps: CapsulesDeps, caller: Caller, id: string, request: ForkRequest): Promise<void> {
  if (!deps.beforeCapsules) return;
  const { teamId, actor } = caller;
  const { template, vcpus, memoryMb, labels } = await requireCapsule(deps.db, teamId, id);
  await deps.beforeCapsules({
    ...{ teamId, actor, by: 'fork', count: request.count, labels: request.metadata ?? labels },
    ...{ template, vcpus, memoryMb },
  });
}

async function insertChild(
  tx: Db,
  id: string,
  source: Capsule,
  labels: Record<string, string>,
): Promise<InsertedCapsule> {
  const { teamId, hostId, template, vcpus, memoryMb, diskRequestMb, diskMb, envs } = source;
  const { timeoutSec, onTimeout, autoResume, deadlineAt } = source;
  return insertCapsule(tx, {
    ...{ id, teamId, hostId, template, vcpus, memoryMb, diskRequestMb, diskMb, envs },
    ...{ timeoutSec, onTimeout, autoResume, deadlineAt },
    labels,
    hostTags: source.hostTags,
    versions: {},
    accessToken: newAccessToken(),
    forkedFrom: source.id,
  });
}
