import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { breakingOnAbort } from './breaking-on-abort.ts';
import { type ByteRange, type ObjectStore, storeFailed } from './object-store.ts';

/** For the body of one answer. */
const BODY_TIMEOUT_MS = 60_000;
const ATTEMPTS = 4;
const FIRST_PAUSE_MS = 100;

/**
 * A part of an object in memory. A body that breaks off or stands still is asked for again; answers that fail as a whole
 * have been asked for again by the store already.
 *
 * @throws object_store_failed, or the signal's reason.
 */
export async function readObject(
  store: ObjectStore,
  key: string,
  range: ByteRange,
  signal: AbortSignal,
): Promise<Buffer<ArrayBuffer>> {
  for (let attempt = 1; ; attempt++) {
    const body = await store.get(key, range, signal);
    try {
      return await collect(body, range.end - range.start, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (attempt === ATTEMPTS) throw storeFailed('it does not give back all that it was given', error);
    }
    // Hosts that were cut off together do not come back together.
    await delay(FIRST_PAUSE_MS * 2 ** attempt * Math.random(), undefined, { signal }).catch(() =>
      signal.throwIfAborted(),
    );
  }
}

async function collect(body: Readable, length: number, signal: AbortSignal): Promise<Buffer<ArrayBuffer>> {
  breakingOnAbort(body, AbortSignal.any([signal, AbortSignal.timeout(BODY_TIMEOUT_MS)]));
  const bytes = Buffer.allocUnsafeSlow(length);
  let filled = 0;
  for await (const part of body as AsyncIterable<Buffer>) {
    if (filled + part.length > length) throw new Error(`The answer is longer than the ${length} bytes asked for`);
    bytes.set(part, filled);
    filled += part.length;
  }
  if (filled < length) throw new Error(`The answer has ${filled} of ${length} bytes`);
  return bytes;
}
