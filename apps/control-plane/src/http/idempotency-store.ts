import { and, eq, isNull, lt, type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { idempotentRequests as requests } from '../database/request-schema.ts';
import { OWNER_LOCK_CLASS } from '../operations/operation-store.ts';

/** What names a request that may come again. */
export interface RequestName {
  /** Who sent it. */
  readonly owner: string;
  /** operationId of the route. */
  readonly operation: string;
  /** The client's idempotency key. */
  readonly key: string;
}

export type Claim =
  /** The caller serves it, and settles it. */
  | { readonly is: 'ours' }
  /** It is being served. */
  | { readonly is: 'running' }
  /** The key belongs to another request. */
  | { readonly is: 'other' }
  /** It was answered; `answer` is null where that was not kept. */
  | { readonly is: 'done'; readonly status: number; readonly answer: string | null };

/**
 * Takes on a request unless it is served already or was. One whose control plane has ended in its middle is taken over.
 *
 * @param runner number of this control plane
 */
export async function claimRequest(db: Db, name: RequestName, requestHash: string, runner: number): Promise<Claim> {
  const taken = await db
    .insert(requests)
    .values({ ...name, requestHash, runner })
    .onConflictDoUpdate({
      target: [requests.owner, requests.operation, requests.key],
      set: { runner, createdAt: sql`now()` },
      setWhere: sql`${requests.status} IS NULL AND ${requests.requestHash} = ${requestHash}
        AND ${requests.runner} <> ${runner} AND NOT ${IS_ALIVE}`,
    })
    .returning({ key: requests.key });
  if (taken.length > 0) return { is: 'ours' };
  const [row] = await db.select().from(requests).where(isNamed(name));
  // It was released between the two statements.
  if (!row) return { is: 'running' };
  if (row.requestHash !== requestHash) return { is: 'other' };
  if (row.status === null) return { is: 'running' };
  return { is: 'done', status: row.status, answer: row.answer };
}

/** Keeps the answer of a request that this control plane took on. */
export async function keepAnswer(
  db: Db,
  name: RequestName,
  runner: number,
  { status, answer }: { status: number; answer: string | null },
): Promise<void> {
  await db.update(requests).set({ status, answer, finishedAt: sql`now()` }).where(isRunBy(name, runner));
}

/** Forgets a request that this control plane took on, so that the next one with its key is served anew. */
export async function releaseRequest(db: Db, name: RequestName, runner: number): Promise<void> {
  await db.delete(requests).where(isRunBy(name, runner));
}

/** @returns how many it removed */
export async function deleteRequestsBefore(db: Db, instant: Date): Promise<number> {
  const { rowCount } = await db.delete(requests).where(lt(requests.createdAt, instant));
  return rowCount ?? 0;
}

function isNamed({ owner, operation, key }: RequestName): SQL | undefined {
  return and(eq(requests.owner, owner), eq(requests.operation, operation), eq(requests.key, key));
}

function isRunBy(name: RequestName, runner: number): SQL | undefined {
  return and(isNamed(name), eq(requests.runner, runner), isNull(requests.status));
}

/** Whether the control plane that serves the request still holds the lock of its number. */
const IS_ALIVE = sql`EXISTS (
  SELECT FROM pg_locks
  WHERE locktype = 'advisory'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::bigint = ${OWNER_LOCK_CLASS}
    AND objid::bigint = ${requests.runner}
)`;
