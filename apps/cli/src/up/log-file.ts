import { closeSync, fstatSync, openSync, renameSync, writeSync } from 'node:fs';

const MAX_BYTES = 10 * 1024 * 1024;
const KEPT_FILES = 3;
const TAIL_BYTES = 4096;

/** A log on disk that cannot grow without bound: full files move on to `.1`, `.2`; the oldest goes. */
export interface LogFile extends Disposable {
  readonly path: string;
  append(data: Uint8Array): void;
  /** The last lines that were written through this object. */
  tail(): string;
}

export function openLogFile(path: string, maxBytes = MAX_BYTES): LogFile {
  let fd = openSync(path, 'a', 0o640);
  let sizeBytes = fstatSync(fd).size;
  let tail = Buffer.alloc(0);
  const rotate = () => {
    closeSync(fd);
    for (let index = KEPT_FILES - 1; index > 0; index -= 1) moveIfThere(nameOf(index - 1), nameOf(index));
    fd = openSync(path, 'a', 0o640);
    sizeBytes = 0;
  };
  const nameOf = (index: number) => (index === 0 ? path : `${path}.${index}`);
  return {
    path,
    append(data) {
      if (sizeBytes > 0 && sizeBytes + data.length > maxBytes) rotate();
      // Written at once: what a program said before it died must be there when somebody looks.
      writeSync(fd, data);
      sizeBytes += data.length;
      tail = Buffer.concat([tail, data]).subarray(-TAIL_BYTES);
    },
    tail: () => tail.toString().trimEnd(),
    [Symbol.dispose]: () => closeSync(fd),
  };
}

function moveIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
