import { setTimeout as delay } from 'node:timers/promises';
import { ApiError } from './api-error.ts';
import type { ApiClient } from './client.ts';
import { isPassing } from './reattach.ts';

const WITHIN_MS = 10_000;
const RETRY_MS = 300;

/**
 * Kills a process whose connection is lost, and which nobody would find any more. Tries for 10 s, and then says that it
 * may still run.
 */
export async function endProcess(
  api: ApiClient,
  capsuleId: string,
  tag: string,
  onNotice: (message: string) => void,
): Promise<void> {
  const signal = AbortSignal.timeout(WITHIN_MS);
  while (!signal.aborted) {
    try {
      return await api.killProcess(capsuleId, tag, signal);
    } catch (error) {
      // It has ended, or its capsule has.
      if (error instanceof ApiError && !isPassing(error)) return;
      await delay(RETRY_MS, undefined, { signal }).catch(() => undefined);
    }
  }
  onNotice(
    `The connection did not come back; \`wrenn attach ${capsuleId} ${tag}\` shows whether the program still runs.`,
  );
}
