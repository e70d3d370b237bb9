import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { deleteFinishedBefore } from './operation-store.ts';

/** How long a finished operation is kept, and with it its idempotency key. */
const KEEP_MS = 30 * 24 * 3_600_000;
const INTERVAL_MS = 3_600_000;

/** Removes operations that ended long ago, now and each hour, until the signal ends this. */
export async function pruneOperations(db: Db, signal: AbortSignal, log: Logger): Promise<void> {
  while (!signal.aborted) {
    try {
      const removed = await deleteFinishedBefore(db, new Date(Date.now() - KEEP_MS));
      if (removed > 0) log.info({ removed }, 'removed old operations');
    } catch (err) {
      log.warn({ err }, 'could not remove old operations');
    }
    await delay(INTERVAL_MS, undefined, { signal }).catch(() => undefined);
  }
}
