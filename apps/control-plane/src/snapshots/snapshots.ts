import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import { z } from 'zod';
import { SYSTEM } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import { refusal } from '../capsules/begin-verb.ts';
import { type Caller, type CapsulesDeps, requireCapsule } from '../capsules/capsules.ts';
import { isUniqueViolation } from '../database/database.ts';
import type { Capsule, Operation, Snapshot } from '../database/schema.ts';
import type { Host } from '../hosts/host.ts';
import { hashRequest, onceForKey } from '../operations/idempotency.ts';
import { insertOperation } from '../operations/operation-store.ts';
import { publishSnapshot } from './snapshot-events.ts';
import {
  findSnapshot,
  findUsableSnapshot,
  insertSnapshot,
  markDeleting,
  SNAPSHOT_NAME_INDEX,
} from './snapshot-store.ts';

export const snapshotArgsSchema = z.object({ snapshotId: z.string() });

/**
 * Keeps the state of a running or paused capsule as a template and waits until it can be used. When the caller's signal
 * comes first it goes on.
 *
 * @param name undefined: its id
 * @throws WrennError `invalid_state`, `name_reserved`, `template_name_taken`; what the host refuses with
 */
export async function createSnapshot(
  deps: CapsulesDeps,
  caller: Caller,
  capsuleId: string,
  name: string | undefined,
  idempotencyKey: string | undefined,
  signal: AbortSignal,
): Promise<Snapshot> {
  const { db, runner } = deps;
  const { teamId } = caller;
  await requireCapsule(db, teamId, capsuleId);
  const requestHash = hashRequest([capsuleId, name ?? null]);
  const identity = { teamId, kind: 'capsule.snapshot', key: idempotencyKey, requestHash } as const;
  const operation = await onceForKey(db, identity, () =>
    beginSnapshot(deps, caller, capsuleId, name, { idempotencyKey, requestHash }),
  );
  await runner.wait(operation.id, signal);
  const { snapshotId } = snapshotArgsSchema.parse(operation.args);
  const snapshot = await findSnapshot(db, snapshotId);
  if (snapshot?.status !== 'ready') throw new WrennError('not_found', { what: `The snapshot ${name ?? snapshotId}` });
  return snapshot;
}

async function beginSnapshot(
  { db, hosts, runner, owner }: CapsulesDeps,
  caller: Caller,
  capsuleId: string,
  wantedName: string | undefined,
  identity: { idempotencyKey: string | undefined; requestHash: string },
): Promise<Operation> {
  const snapshotId = newId('snap');
  const name = wantedName ?? snapshotId;
  if (platformTemplates(hosts()).some((template) => template.name === name)) {
    throw new WrennError('name_reserved', { name });
  }
  try {
    const operation = await db.transaction(async (tx) => {
      const capsule = await requireCapsule(tx, caller.teamId, capsuleId);
      if (!canBeKept(capsule)) throw await refusal(tx, capsuleId, 'running or paused');
      const { teamId, hostId, template, vcpus, memoryMb, envs, diskMb, diskRequestMb } = capsule;
      await insertSnapshot(tx, {
        ...{ id: snapshotId, teamId, hostId, name, capsuleId, template, vcpus, memoryMb, envs },
        diskMb: diskMb ?? diskRequestMb,
      });
      const args: z.output<typeof snapshotArgsSchema> = { snapshotId };
      return insertOperation(tx, { ...caller, ...identity, capsuleId, kind: 'capsule.snapshot', args, owner });
    });
    runner.run(operation);
    return operation;
  } catch (error) {
    if (isUniqueViolation(error, SNAPSHOT_NAME_INDEX)) throw new WrennError('template_name_taken', { name });
    throw error;
  }
}

function canBeKept({ status }: Capsule): boolean {
  return status === 'running' || status === 'paused';
}

/**
 * Removes a snapshot. Capsules that were made of it are not touched. From now on nobody sees it; what its host holds of
 * it goes as soon as that host can be asked.
 */
export async function deleteSnapshot(deps: CapsulesDeps, caller: Caller, name: string): Promise<void> {
  const snapshot = await requireSnapshot(deps, caller, name);
  if (snapshot.teamId !== caller.teamId) throw new WrennError('forbidden');
  const actor = caller.askedBy ?? SYSTEM;
  await deps.db.transaction(async (tx) => {
    await markDeleting(tx, snapshot.id);
    await publishSnapshot(tx, 'template.snapshot.deleted', snapshot, actor);
    await recordAudit(tx, {
      teamId: caller.teamId,
      actor,
      resourceType: 'snapshot',
      resourceId: snapshot.id,
      action: 'delete',
      scope: 'team',
      status: 'success',
      metadata: { name: snapshot.name },
    });
  });
  deps.leftovers.nudge();
}

/** One of the team's or of the platform's. @throws WrennError `template_not_found` */
export async function requireSnapshot({ db }: CapsulesDeps, { teamId }: Caller, name: string): Promise<Snapshot> {
  const snapshot = await findUsableSnapshot(db, teamId, name);
  if (!snapshot) throw new WrennError('template_not_found', { name });
  return snapshot;
}

/** A template that every team has. */
export interface PlatformTemplate {
  readonly name: string;
  readonly envdVersion: string;
}

/** What the hosts said last of their templates, also hosts that are silent now. */
export function platformTemplates(hosts: readonly Host[]): PlatformTemplate[] {
  const all = hosts.flatMap(({ facts }) => facts?.templates ?? []);
  const byName = new Map(all.map(({ name, envdVersion }) => [name, { name, envdVersion }]));
  return [...byName.values()].toSorted((a, b) => a.name.localeCompare(b.name));
}
