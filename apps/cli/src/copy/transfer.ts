import { Transform } from 'node:stream';
import { startProgress, transferDetail } from '../terminal/progress.ts';

/** Counts what flows through, and shows how far it is. */
export interface Meter extends Disposable {
  readonly stream: Transform;
  readonly bytes: number;
}

/** @param totalBytes undefined where the size is not known before. */
export function startMeter(title: string, totalBytes: number | undefined): Meter {
  const started = performance.now();
  const progress = startProgress(title);
  let bytes = 0;
  const stream = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      progress.update(transferDetail(bytes, totalBytes, performance.now() - started));
      done(null, chunk);
    },
  });
  return {
    stream,
    get bytes() {
      return bytes;
    },
    [Symbol.dispose]: () => progress[Symbol.dispose](),
  };
}
