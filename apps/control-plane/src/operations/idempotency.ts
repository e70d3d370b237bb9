import { createHash } from 'node:crypto';
import { WrennError } from '@wrenn/protocol/errors';
import type { Db } from '../database/database.ts';
import type { Operation, OperationKind } from '../database/schema.ts';
import { findByIdempotencyKey } from './operation-store.ts';

/** What tells a repeated request from another one. */
export interface RequestIdentity {
  readonly teamId: string;
  readonly kind: OperationKind;
  /** The client's idempotency key; without one every request is a new one. */
  readonly key: string | undefined;
  /** SHA-256, in hex, of what was asked. */
  readonly requestHash: string;
}

export function hashRequest(request: unknown): string {
  return createHash('sha256').update(JSON.stringify(request)).digest('hex');
}

/**
 * The operation that an earlier request with the same idempotency key began, else a new one.
 *
 * @param begin inserts the row, under that key
 * @throws WrennError `idempotency_key_used` when the key was used for another request; what `begin` throws
 */
export async function onceForKey(
  db: Db,
  identity: RequestIdentity,
  begin: () => Promise<Operation>,
): Promise<Operation> {
  const earlier = await findEarlier(db, identity);
  if (earlier) return earlier;
  try {
    return await begin();
  } catch (error) {
    // The same request, a moment earlier, may be why this one failed.
    const winner = await findEarlier(db, identity);
    if (winner) return winner;
    throw error;
  }
}

async function findEarlier(
  db: Db,
  { teamId, kind, key, requestHash }: RequestIdentity,
): Promise<Operation | undefined> {
  if (key === undefined) return undefined;
  const operation = await findByIdempotencyKey(db, teamId, kind, key);
  if (operation && operation.requestHash !== requestHash) {
    throw new WrennError('idempotency_key_used', { key: key ?? '' });
  }
  return operation;
}
