import { newId } from '@wrenn/protocol/ids';
import { and, eq, inArray, lt, ne, or, sql } from 'drizzle-orm';
import { type Actor, noteTold } from '../access/actor.ts';
import { recordOperation } from '../audit/operation-entries.ts';
import type { Db } from '../database/database.ts';
import { type Operation, type OperationKind, operations, type StoredError } from '../database/schema.ts';
import { announce } from '../shared/announce.ts';

/** Channel on which every finished operation is announced by its id. */
export const FINISHED_CHANNEL = 'wrenn_operation_finished';
/** First key of the advisory locks that running control planes hold; the second is their own number. */
export const OWNER_LOCK_CLASS = 1_985_229_328;

export interface NewOperation {
  readonly teamId: string;
  readonly capsuleId: string;
  readonly kind: OperationKind;
  readonly actor: string;
  readonly askedBy?: Actor | undefined;
  readonly idempotencyKey?: string | undefined;
  readonly requestHash?: string | undefined;
  /** All that a repeated run needs to ask for exactly the same. */
  readonly args?: Record<string, unknown>;
  readonly owner: number;
}

/** What is recorded in the transaction that ends an operation. */
export interface OperationOutcome {
  readonly result?: Record<string, unknown>;
  readonly record?: (tx: Db) => Promise<void>;
}

export async function insertOperation(db: Db, operation: NewOperation): Promise<Operation> {
  const [row] = await db
    .insert(operations)
    .values({ ...operation, id: newId('op'), state: 'running', step: 'begin' })
    .returning();
  if (!row) throw new Error('INSERT gave no row');
  // Its end is recorded, whichever it is.
  noteTold(operation.askedBy, 'success', 'failure');
  return row;
}

export async function findOperation(db: Db, id: string): Promise<Operation | undefined> {
  const [row] = await db.select().from(operations).where(eq(operations.id, id));
  return row;
}

export async function findByIdempotencyKey(
  db: Db,
  teamId: string,
  kind: OperationKind,
  key: string,
): Promise<Operation | undefined> {
  const [row] = await db
    .select()
    .from(operations)
    .where(and(eq(operations.teamId, teamId), eq(operations.kind, kind), eq(operations.idempotencyKey, key)));
  return row;
}

/** The operation of this kind that goes on for a capsule. */
export async function findRunning(db: Db, capsuleId: string, kind: OperationKind): Promise<Operation | undefined> {
  const [row] = await db
    .select()
    .from(operations)
    .where(and(eq(operations.capsuleId, capsuleId), eq(operations.kind, kind), eq(operations.state, 'running')));
  return row;
}

/** The fork that makes a capsule right now. */
export async function findRunningForkOf(db: Db, childId: string, sourceId: string): Promise<Operation | undefined> {
  const fork = await findRunning(db, sourceId, 'capsule.fork');
  const children: unknown = fork?.args.children;
  return Array.isArray(children) && children.includes(childId) ? fork : undefined;
}

/** Whether an operation is at work on a capsule, as its own or as a child of its fork. */
export async function isBeingWorkedOn(db: Db, capsuleId: string): Promise<boolean> {
  const isChild = and(
    eq(operations.kind, 'capsule.fork'),
    sql`${operations.args} @> ${JSON.stringify({ children: [capsuleId] })}::jsonb`,
  );
  const [row] = await db
    .select({ id: operations.id })
    .from(operations)
    .where(and(eq(operations.state, 'running'), or(eq(operations.capsuleId, capsuleId), isChild)))
    .limit(1);
  return row !== undefined;
}

/** Operations of one kind for a capsule that failed. */
export async function listFailed(db: Db, capsuleId: string, kind: OperationKind): Promise<Operation[]> {
  return db
    .select()
    .from(operations)
    .where(and(eq(operations.capsuleId, capsuleId), eq(operations.kind, kind), eq(operations.state, 'failed')));
}

/** @returns how many it removed */
export async function deleteFinishedBefore(db: Db, instant: Date): Promise<number> {
  const { rowCount } = await db.delete(operations).where(lt(operations.finishedAt, instant));
  return rowCount ?? 0;
}

export async function setStep(db: Db, id: string, step: string): Promise<void> {
  await db.update(operations).set({ step, updatedAt: sql`now()` }).where(eq(operations.id, id));
}

/** Ends an operation and announces it. One that has ended already stays as it is. */
export async function finishOperation(
  db: Db,
  id: string,
  end: OperationOutcome | { error: StoredError },
): Promise<void> {
  const fields =
    'error' in end
      ? { state: 'failed' as const, error: end.error }
      : { state: 'succeeded' as const, result: end.result ?? null };
  await db.transaction(async (tx) => {
    if ('record' in end) await end.record?.(tx);
    const [ended] = await tx
      .update(operations)
      .set({ ...fields, updatedAt: sql`now()`, finishedAt: sql`now()` })
      .where(and(eq(operations.id, id), eq(operations.state, 'running')))
      .returning();
    if (ended) await recordOperation(tx, ended);
    await announce(tx, FINISHED_CHANNEL, id);
  });
}

/** Which of these operations do not go on any more, or do for another owner. */
export async function listLost(db: Db, ids: readonly string[], owner: number): Promise<string[]> {
  const held = await db
    .select({ id: operations.id })
    .from(operations)
    .where(and(inArray(operations.id, [...ids]), eq(operations.owner, owner), eq(operations.state, 'running')));
  const isHeld = new Set(held.map(({ id }) => id));
  return ids.filter((id) => !isHeld.has(id));
}

/** Takes over every operation whose control plane has ended: nobody holds its lock. Each goes to one taker only. */
export async function adoptOrphans(db: Db, owner: number): Promise<Operation[]> {
  return db
    .update(operations)
    .set({ owner, updatedAt: sql`now()` })
    .where(
      and(
        eq(operations.state, 'running'),
        ne(operations.owner, owner),
        sql`NOT EXISTS (
          SELECT FROM pg_locks
          WHERE locktype = 'advisory'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND classid::bigint = ${OWNER_LOCK_CLASS}
            AND objid::bigint = ${operations.owner}
        )`,
      ),
    )
    .returning();
}
