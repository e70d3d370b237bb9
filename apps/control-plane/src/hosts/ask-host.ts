import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import type { Host } from './host.ts';

/** A call fails a moment before the host counts as offline. */
const RETRY_MS = 200;

export interface AskOptions {
  readonly signal: AbortSignal;
  /** How long to wait for a silent host. Default: as long as it takes. */
  readonly patienceMs?: number;
}

/**
 * Runs a call that may be repeated. When the host does not answer, waits until it is back and runs it again: its agent
 * may have been restarted in the middle.
 *
 * @throws what the call throws; `host_unavailable` when the host stays silent for longer than the caller's patience
 */
export async function askHost<T>(host: Host, options: AskOptions, run: () => Promise<T>): Promise<T> {
  const { signal, patienceMs } = options;
  const deadline = patienceMs === undefined ? undefined : AbortSignal.timeout(patienceMs);
  for (;;) {
    try {
      return await run();
    } catch (error) {
      signal.throwIfAborted();
      if (!isHostSilent(error) || deadline?.aborted) throw error;
      try {
        await nextConnection(host, deadline ? AbortSignal.any([signal, deadline]) : signal);
      } catch {
        signal.throwIfAborted();
        throw error;
      }
    }
  }
}

export function isHostSilent(error: unknown): boolean {
  return error instanceof WrennError && error.code === 'host_unavailable';
}

async function nextConnection(host: Host, signal: AbortSignal): Promise<void> {
  await delay(RETRY_MS, undefined, { signal });
  await host.whenOnline(signal);
}
