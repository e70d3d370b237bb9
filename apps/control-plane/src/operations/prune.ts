import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { deleteRequestsBefore } from '../http/idempotency-store.ts';
import { deleteFinishedBefore } from './operation-store.ts';

/** How long a finished operation is kept, and the answer of a request with an idempotency key. */
const KEEP_MS = 30 * 24 * 3_600_000;
const INTERVAL_MS = 3_600_000;

/** Removes operations that ended, and answers that were kept, long ago: now and each hour, until the signal ends this. */
export async function pruneOperations(db: Db, signal: AbortSignal, log: Logger): Promise<void> {
  while (!signal.aborted) {
    try {
      const before = new Date(Date.now() - KEEP_MS);
      const removed = {
        operations: await deleteFinishedBefore(db, before),
        answers: await deleteRequestsBefore(db, before),
      };
      if (removed.operations + removed.answers > 0) log.info(removed, 'removed old operations and kept answers');
    } catch (err) {
      log.warn({ err }, 'could not remove old operations');
    }
    await delay(INTERVAL_MS, undefined, { signal }).catch(() => undefined);
  }
}
