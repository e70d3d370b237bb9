import { setTimeout as delay } from 'node:timers/promises';
import { patientTimeout } from '@wrenn/config/patient-timeout';
import { WrennError } from '@wrenn/protocol/errors';
import type { Host } from './host.ts';

/** A host that was lost so short a time ago is most likely connecting again. */
const RECONNECT_MS = 2000;
/** A call to a host may fail a moment before that counts as lost. */
const NOTICE_MS = 200;

/**
 * Does what a host must be online for. Where there is none, and one was lost only just now, it is done once more when
 * that one is back: a connection that is made anew is nothing that clients need to hear of.
 *
 * @param hosts any of which may be the one that is needed
 * @throws what `run` throws
 */
export async function acrossReconnect<T>(hosts: () => readonly Host[], run: () => Promise<T>): Promise<T> {
  const lostBefore = hosts().filter(isJustLost);
  try {
    return await run();
  } catch (error) {
    if (!isForLackOfHost(error)) throw error;
    if (error.code === 'host_unavailable' && lostBefore.length === 0) await delay(NOTICE_MS);
    const lost = new Set([...lostBefore, ...hosts().filter(isJustLost)]);
    if (!(await isSomeBack([...lost]))) throw error;
    return run();
  }
}

function isJustLost({ online, heardMs }: Host): boolean {
  return !online && heardMs !== undefined && performance.now() - heardMs < RECONNECT_MS;
}

function isForLackOfHost(error: unknown): error is WrennError {
  return error instanceof WrennError && (error.code === 'no_hosts_available' || error.code === 'host_unavailable');
}

async function isSomeBack(lost: readonly Host[]): Promise<boolean> {
  const done = new AbortController();
  using limit = patientTimeout(RECONNECT_MS);
  const signal = AbortSignal.any([done.signal, limit.signal]);
  try {
    await Promise.any(lost.map((host) => host.whenOnline(signal)));
    return true;
  } catch {
    // None of them, in time.
    return false;
  } finally {
    done.abort();
  }
}
