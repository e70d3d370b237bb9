import { SYSTEM } from '../access/actor.ts';
import { findCapsule } from '../capsules/capsule-store.ts';
import type { Db } from '../database/database.ts';
import type { Capsule, Operation, OperationKind } from '../database/schema.ts';
import { findSnapshot } from '../snapshots/snapshot-store.ts';
import { type AuditEntry, recordAudit } from './record.ts';

const ACTIONS = {
  'capsule.create': 'create',
  'capsule.destroy': 'destroy',
  'capsule.pause': 'pause',
  'capsule.resume': 'resume',
  'capsule.fork': 'fork',
  'capsule.snapshot': 'create',
  'capsule.hibernate': 'hibernate',
} as const satisfies Record<OperationKind, string>;

/** Records how an operation ended, in the transaction that ends it: one entry for each, however often it was begun. */
export async function recordOperation(tx: Db, operation: Operation): Promise<void> {
  const { teamId, kind, capsuleId, args, askedBy, error, createdAt } = operation;
  const isOfSnapshot = kind === 'capsule.snapshot';
  const success = askedBy ? 'success' : 'info';
  await recordAudit(tx, {
    teamId,
    actor: askedBy ?? SYSTEM,
    resourceType: isOfSnapshot ? 'snapshot' : 'capsule',
    resourceId: isOfSnapshot ? String(args.snapshotId) : capsuleId,
    action: ACTIONS[kind],
    scope: 'team',
    status: error ? 'error' : success,
    metadata: {
      operation_id: operation.id,
      duration_ms: Math.max(0, Date.now() - createdAt.getTime()),
      ...(error ? { code: error.code } : {}),
      ...(await detailsOf(tx, operation)),
    },
  });
}

async function detailsOf(tx: Db, { kind, capsuleId, args }: Operation): Promise<Record<string, unknown>> {
  switch (kind) {
    case 'capsule.create': {
      const capsule = await findCapsule(tx, capsuleId);
      return capsule ? { template: capsule.template, vcpus: capsule.vcpus, memory_mb: capsule.memoryMb } : {};
    }
    case 'capsule.fork':
      return { children: args.children };
    case 'capsule.snapshot': {
      const snapshot = await findSnapshot(tx, String(args.snapshotId));
      return { capsule_id: capsuleId, ...(snapshot ? { name: snapshot.name } : {}) };
    }
    default:
      return {};
  }
}

/** Records what became of a capsule without anybody asking for it, in the transaction of the move. */
export async function recordCapsuleNews(tx: Db, before: Capsule['status'], now: Capsule): Promise<void> {
  const { action, status } = newsOf(before, now.status);
  await recordAudit(tx, {
    teamId: now.teamId,
    actor: SYSTEM,
    resourceType: 'capsule',
    resourceId: now.id,
    action,
    scope: 'team',
    status,
    metadata: { from: before, to: now.status, ...(now.statusReason ? { reason: now.statusReason } : {}) },
  });
}

function newsOf(before: Capsule['status'], now: Capsule['status']): Pick<AuditEntry, 'action' | 'status'> {
  if (now === 'missing') return { action: 'missing', status: 'warning' };
  if (now === 'error') return { action: 'error', status: 'error' };
  if (before === 'missing' || before === 'error') return { action: 'return', status: 'info' };
  return { action: now === 'paused' ? 'pause' : 'follow_host', status: 'info' };
}
