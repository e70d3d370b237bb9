import { newId } from '@wrenn/protocol/ids';
import { and, eq, ne, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type Operation, type OperationKind, operations, type StoredError } from '../database/schema.ts';

/** Channel on which every finished operation is announced by its id. */
export const FINISHED_CHANNEL = 'wrenn_operation_finished';
/** First key of the advisory locks that running control planes hold; the second is their own number. */
export const OWNER_LOCK_CLASS = 1_985_229_328;

export interface NewOperation {
  readonly teamId: string;
  readonly capsuleId: string;
  readonly kind: OperationKind;
  readonly actor: string;
  readonly idempotencyKey?: string | undefined;
  readonly requestHash?: string | undefined;
  readonly owner: number;
}

export async function insertOperation(db: Db, operation: NewOperation): Promise<Operation> {
  const [row] = await db
    .insert(operations)
    .values({ ...operation, id: newId('op'), state: 'running', step: 'begin' })
    .returning();
  if (!row) throw new Error('INSERT gave no row');
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

export async function findRunning(db: Db, capsuleId: string, kind: OperationKind): Promise<Operation | undefined> {
  const [row] = await db
    .select()
    .from(operations)
    .where(and(eq(operations.capsuleId, capsuleId), eq(operations.kind, kind), eq(operations.state, 'running')));
  return row;
}

export async function setStep(db: Db, id: string, step: string): Promise<void> {
  await db.update(operations).set({ step, updatedAt: sql`now()` }).where(eq(operations.id, id));
}

/** Ends an operation and announces it. One that has ended already stays as it is. */
export async function finishOperation(db: Db, id: string, error: StoredError | undefined): Promise<void> {
  const outcome = error ? { state: 'failed' as const, error } : { state: 'succeeded' as const };
  await db.transaction(async (tx) => {
    await tx
      .update(operations)
      .set({ ...outcome, updatedAt: sql`now()`, finishedAt: sql`now()` })
      .where(and(eq(operations.id, id), eq(operations.state, 'running')));
    await tx.execute(sql`SELECT pg_notify(${FINISHED_CHANNEL}, ${id})`);
  });
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
