import { newId } from '@wrenn/protocol/ids';
import type { ForkRequest } from '@wrenn/protocol/rest/sleep';
import { z } from 'zod';
import type { Db } from '../database/database.ts';
import type { Capsule } from '../database/schema.ts';
import { findOperation } from '../operations/operation-store.ts';
import { beginVerb } from './begin-verb.ts';
import { findCapsules, insertCapsule } from './capsule-store.ts';
import { type Caller, type CapsulesDeps, newAccessToken } from './capsules.ts';
import { nowMs, traceArgsSchema } from './trace.ts';

export const forkArgsSchema = traceArgsSchema.extend({ children: z.array(z.string()) });

/**
 * Makes new capsules of a running one, which goes on, and waits until all of them run. They have its memory, disk,
 * environment and settings, and an access token each. When the caller's signal comes first it goes on.
 *
 * @returns the children: all that were asked for
 * @throws WrennError `invalid_state` when it does not run; what its host refuses with, and then there is no child
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
  const children = Array.from({ length: request.count }, () => newId('cl'));
  const operation = await beginVerb(deps, caller, {
    id,
    kind: 'capsule.fork',
    key: idempotencyKey,
    request,
    when: ({ status }) => status === 'running',
    needed: 'running',
    to: 'forking',
    args: (): z.output<typeof forkArgsSchema> => ({ children, receivedAtMs, placedAtMs: nowMs() }),
    also: async (tx, source) => {
      for (const child of children) await insertChild(tx, child, source, request.metadata ?? source.labels);
    },
  });
  await runner.wait(operation.id, signal);
  const { args } = (await findOperation(db, operation.id)) ?? operation;
  return findCapsules(db, forkArgsSchema.parse(args).children);
}

async function insertChild(tx: Db, id: string, source: Capsule, labels: Record<string, string>): Promise<void> {
  const { teamId, hostId, template, vcpus, memoryMb, diskRequestMb, diskMb, envs } = source;
  const { timeoutSec, onTimeout, autoResume, deadlineAt } = source;
  await insertCapsule(tx, {
    ...{ id, teamId, hostId, template, vcpus, memoryMb, diskRequestMb, diskMb, envs },
    ...{ timeoutSec, onTimeout, autoResume, deadlineAt },
    labels,
    versions: {},
    accessToken: newAccessToken(),
    forkedFrom: source.id,
  });
}
