import { WrennError } from '@wrenn/protocol/errors';
import type { CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import type { Db } from '../database/database.ts';
import type { Capsule, Operation, OperationKind } from '../database/schema.ts';
import { hashRequest, onceForKey } from '../operations/idempotency.ts';
import { insertOperation } from '../operations/operation-store.ts';
import { findCapsule, lockCapsule } from './capsule-store.ts';
import { type Caller, type CapsulesDeps, requireCapsule } from './capsules.ts';
import { type TransitionChanges, transitionWhen } from './transition.ts';

/** Something that is done to a capsule and takes it out of its state while it lasts. */
export interface Verb {
  readonly id: string;
  readonly kind: OperationKind;
  readonly key: string | undefined;
  /** What tells two requests for the same verb and capsule apart. */
  readonly request: unknown;
  /** Whether the capsule's state allows it. May throw what the caller is to hear. */
  readonly when: (capsule: Capsule) => boolean;
  /** The states that do, for the refusal. */
  readonly needed: string;
  readonly to: CapsuleStatus;
  /**
   * What else changes, decided with the capsule and nothing of it able to change until the transaction ends. May lock
   * hosts, and throw what the caller is to hear. Not asked where `when` refuses.
   */
  readonly prepare?: (tx: Db, capsule: Capsule) => Promise<TransitionChanges>;
  /** From the capsule as it was before. */
  readonly args: (before: Capsule) => Record<string, unknown>;
  /** What is written in the same transaction. */
  readonly also?: (tx: Db, before: Capsule) => Promise<void>;
}

/**
 * Moves a capsule and writes its operation in one transaction, so that of several at once one begins; then has it run.
 * A repeated request with the same idempotency key gets the operation of the first.
 *
 * @throws WrennError `capsule_not_found`, `host_unavailable` when it is missing, `invalid_state`, `conflict`
 */
export async function beginVerb(deps: CapsulesDeps, caller: Caller, verb: Verb): Promise<Operation> {
  const { db, runner, owner } = deps;
  const { id, kind, key } = verb;
  await requireCapsule(db, caller.teamId, id);
  const requestHash = hashRequest([id, verb.request]);
  return onceForKey(db, { teamId: caller.teamId, kind, key, requestHash }, async () => {
    const operation = await db.transaction(async (tx) => {
      let before: Capsule | undefined;
      const allows = (capsule: Capsule) => {
        before = capsule;
        return verb.when(capsule);
      };
      const found = verb.prepare ? await lockCapsule(tx, id) : undefined;
      const changes = found && verb.when(found) ? await verb.prepare?.(tx, found) : {};
      const moved = await transitionWhen(tx, id, allows, verb.to, changes);
      if (!moved || !before) throw await refusal(tx, id, verb.needed);
      await verb.also?.(tx, before);
      const args = verb.args(before);
      return insertOperation(tx, { ...caller, capsuleId: id, kind, idempotencyKey: key, requestHash, args, owner });
    });
    runner.run(operation);
    return operation;
  });
}

/** Why a capsule cannot take a verb. */
export async function refusal(db: Db, id: string, needed: string): Promise<WrennError> {
  const capsule = await findCapsule(db, id);
  if (!capsule) return new WrennError('capsule_not_found', { id });
  if (capsule.status === 'missing') return new WrennError('host_unavailable');
  const status = capsule.statusReason ? `${capsule.status} (${capsule.statusReason})` : capsule.status;
  return new WrennError('invalid_state', { id, status, needed });
}
