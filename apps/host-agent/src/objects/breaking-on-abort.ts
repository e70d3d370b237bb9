import { addAbortSignal, type Readable } from 'node:stream';

/** The stream, which breaks when the signal aborts; its reader hears of it. */
export function breakingOnAbort(stream: Readable, signal: AbortSignal): Readable {
  stream.on('error', () => {
    // It may come when nobody reads yet or any more, which must not end the process.
  });
  return addAbortSignal(signal, stream);
}
