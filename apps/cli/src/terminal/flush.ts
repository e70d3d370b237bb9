import type { Writable } from 'node:stream';

/**
 * Waits until what was printed has been taken: output into a pipe that is full waits in this program, and would be lost
 * with it.
 *
 * @param signal gives it up: its reader may never read
 */
export async function flush(streams: readonly Writable[], signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise: givenUp, resolve: giveUp } = Promise.withResolvers<void>();
  signal.addEventListener('abort', () => giveUp(), { once: true });
  // Called also when what waits cannot be written any more.
  const taken = streams.map((stream) => new Promise<void>((done) => stream.write('', () => done())));
  await Promise.race([givenUp, Promise.all(taken)]);
}
