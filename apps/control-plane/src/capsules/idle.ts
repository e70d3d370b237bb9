import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import type { Capsule } from '../database/schema.ts';
import type { CapsuleActivity } from './activity.ts';
import { listIdleCapsules, msUntilNextIdle } from './capsule-store.ts';

const MIN_WAIT_MS = 1000;
/** Another control plane may have made a capsule with a nearer deadline. */
const MAX_WAIT_MS = 15_000;

/** Ends capsules that nobody has used for their `timeout_sec`, until the signal ends this. */
export async function endIdleCapsules(
  db: Db,
  activity: CapsuleActivity,
  destroy: (capsule: Capsule) => Promise<unknown>,
  signal: AbortSignal,
  log: Logger,
): Promise<void> {
  while (!signal.aborted) {
    let waitMs = MAX_WAIT_MS;
    try {
      for (const capsule of await listIdleCapsules(db)) {
        if (activity.isInUse(capsule.id)) continue;
        log.info({ capsule: capsule.id, timeoutSec: capsule.timeoutSec }, 'ending an idle capsule');
        await destroy(capsule);
      }
      waitMs = Math.min((await msUntilNextIdle(db)) ?? MAX_WAIT_MS, MAX_WAIT_MS);
    } catch (err) {
      log.warn({ err }, 'could not look for idle capsules');
    }
    await delay(Math.max(waitMs, MIN_WAIT_MS), undefined, { signal }).catch(() => undefined);
  }
}
